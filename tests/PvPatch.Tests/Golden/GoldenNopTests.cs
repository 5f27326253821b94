using PvPatch.Machine;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>Every row of <c>nops.txt</c> against <see cref="NopStyle"/>.</summary>
public sealed class GoldenNopTests
{
    [Fact]
    public void Every_style_fills_every_length_as_the_table_says()
    {
        var wrong = new List<string>();
        var styles = new HashSet<NopStyle>();
        foreach (GoldenRow row in GoldenTable.Load("nops.txt").Rows)
        {
            NopStyle style = Style(row["family"], row.Int32("bits"));
            styles.Add(style);
            byte[] filled = new byte[row.Int32("length")];
            style.Fill(filled);
            if (!filled.AsSpan().SequenceEqual(row.Bytes("bytes")))
            {
                wrong.Add($"{row.Place}: table {row["bytes"]}, engine {HexBytes.Format(filled)}");
            }
        }

        Assert.True(wrong.Count == 0, string.Join(Environment.NewLine, wrong));
        Assert.Equal(NopStyle.All.ToHashSet(), styles);
    }

    [Fact]
    public void A_fill_does_not_leave_its_span()
    {
        foreach (NopStyle style in NopStyle.All)
        {
            for (int length = 0; length <= 254; length++)
            {
                byte[] bytes = new byte[length + 2];
                bytes[0] = 0xa5;
                bytes[^1] = 0xa5;
                style.Fill(bytes.AsSpan(1, length));
                Assert.True(bytes[0] == 0xa5 && bytes[^1] == 0xa5, $"{style} {length}");
            }
        }
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Every_style_of_a_bitness_decodes_to_whole_instructions_at_every_length(int bitness)
    {
        NopStyle[] styles = bitness == 64
            ? [NopStyle.K8, NopStyle.P6, NopStyle.Linux61X64, NopStyle.Linux612X64]
            : [NopStyle.Intel, NopStyle.K8, NopStyle.K7, NopStyle.P6, NopStyle.Linux61X86, NopStyle.Linux612X86];
        foreach (NopStyle style in styles)
        {
            for (int length = 1; length <= 254; length++)
            {
                byte[] bytes = new byte[length];
                style.Fill(bytes);
                CapstoneReader.AssertWholeInstructions(bytes, 0x1000, bitness, $"{style} {length}");
            }
        }
    }

    private static NopStyle Style(string family, int bits)
    {
        bool two = family.StartsWith("x86_", StringComparison.Ordinal);
        return NopStyle.All.Single(s => s.Name == (two && bits == 32 ? family + "-32" : family));
    }
}
