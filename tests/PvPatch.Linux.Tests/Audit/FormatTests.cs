using System.Text;
using PvPatch.Linux.Audit;

namespace PvPatch.Linux.Tests.Audit;

public sealed class FormatTests
{
    [Theory]
    [InlineData("", 0)]
    [InlineData("no conversion\n", 0)]
    [InlineData("\u00016%s: %d of %lu\n", 3)]
    [InlineData("100%% of %08llx", 1)]
    [InlineData("%*pE", 2)]
    [InlineData("%-*.*s|%pS", 4)]
    [InlineData("ends with %", 1)]
    public void Conversions_are_counted(string format, int count) =>
        Assert.Equal(count, KernelCodeFacts.CountArguments(Encoding.Latin1.GetBytes(format)));

    [Theory]
    [InlineData("\u0002")]
    [InlineData("caf\u00e9 %s")]
    public void What_is_no_text_is_no_format(string format) =>
        Assert.Null(KernelCodeFacts.CountArguments(Encoding.Latin1.GetBytes(format)));
}
