using PvPatch.Machine;
using PvPatch.Paravirt;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>Every row of <c>clobbers.txt</c> against the encoding the rules of that kernel name.</summary>
public sealed class GoldenClobberTests
{
    [Fact]
    public void Every_word_means_what_the_table_says_and_is_written_back_the_same()
    {
        int compared = 0;
        foreach (GoldenRow row in GoldenTable.Load("clobbers.txt").Rows)
        {
            KernelClobberEncoding encoding = KernelEras.Clobbers(row["rules"], row.Int32("bits"));
            ushort word = (ushort)row.Number("word");
            Assert.True(RegisterSet.TryParse(row["registers"], out RegisterSet set), row.ToString());
            Assert.True(encoding.Decode(word) == (set | RegisterSet.Flags), $"{row}: engine {encoding.Decode(word)}");
            Assert.True(encoding.Encode(set) == word, $"{row}: engine 0x{encoding.Encode(set):x}");
            compared++;
        }

        Assert.True(compared > 100, $"only {compared} rows");
    }

    [Fact]
    public void Bits_an_era_does_not_define_mean_nothing()
    {
        foreach (KernelClobberEncoding encoding in (KernelClobberEncoding[])[KernelClobberEncoding.I386,
            KernelClobberEncoding.I386Since2630, KernelClobberEncoding.X64, KernelClobberEncoding.X64Before2630])
        {
            Assert.Equal(encoding.Any, encoding.Decode(0xffff));
            Assert.Equal(RegisterSet.Flags, encoding.Decode((ushort)~encoding.AnyWord));
        }
    }
}
