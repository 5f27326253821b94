using PvPatch.Plans;
using PvPatch.Tool.Info;
using PvPatch.Tool.Output;

namespace PvPatch.Tool.Tests;

public sealed class OutputTests
{
    [Theory]
    [InlineData("Linux version 6.1.0-test (a@b) #1\n\0rest", "Linux version 6.1.0-test (a@b) #1")]
    [InlineData("Linux version %s (%s)\0..Linux version 5.10.1 x\0", "Linux version 5.10.1 x")]
    [InlineData("Linux version 6", "Linux version 6")]
    [InlineData("Linux version ", null)]
    [InlineData("", null)]
    public void The_banner_of_a_kernel_is_found(string image, string? banner) =>
        Assert.Equal(banner, VersionBanner.Find(System.Text.Encoding.ASCII.GetBytes(image)));

    [Fact]
    public void A_banner_has_an_end() =>
        Assert.True(VersionBanner.Find(System.Text.Encoding.ASCII.GetBytes("Linux version 6" + new string('x', 100_000)))!.Length <= 512);

    [Fact]
    public void A_banner_among_many_that_are_none_is_not_searched_for_ever() =>
        Assert.Null(VersionBanner.Find(
            System.Text.Encoding.ASCII.GetBytes(string.Concat(Enumerable.Repeat("Linux version x", 1000)) + "Linux version 6")));

    [Theory]
    [InlineData(64, "fa0f1f440000", "cli; nop(5)")]
    [InlineData(64, "4889809090909089c0", "mov [rax-0x6f6f6f70],rax; mov eax,eax")] // no nop in 64-bit code: it clears the upper half
    [InlineData(32, "89c08d742600", "nop(6)")] // mov eax,eax; lea esi,[esi+0]
    [InlineData(64, "e8", "(bad)")]
    [InlineData(64, "0406", "add al,6")] // no name for an immediate
    public void Instructions_are_written_as_nasm_does_and_nops_as_their_length(int bitness, string hex, string text) =>
        Assert.Equal(text, new Disassembler(bitness, static a => a == 6 ? "six" : null).Line(Convert.FromHexString(hex), 0x1000));

    [Fact]
    public void Targets_have_names() =>
        Assert.Equal(
            "call native_halt", new Disassembler(64, static a => a == 0x1105 ? "native_halt" : null).Line([0xe8, 0, 1, 0, 0], 0x1000));

    [Fact]
    public void Every_action_and_every_reason_has_words()
    {
        Assert.DoesNotContain(Enum.GetValues<PatchAction>(), static a => Words.Of(a) == a.ToString());
        Assert.DoesNotContain(Enum.GetValues<PatchReason>(), static r => Words.Of(r) == r.ToString());
        Assert.DoesNotContain(Enum.GetValues<PatchAction>(), static a => Words.Of(a).Length > 12); // the columns of sites, plan and explain
    }

    [Fact]
    public void Columns_never_run_together()
    {
        using var stream = new MemoryStream();
        var output = new TextOutput(stream, colour: false);
        output.Column("", 2).Column("longer", 3).Column("six", 6).Line("end");
        output.Flush();
        Assert.Equal("  longer six   end\n", System.Text.Encoding.ASCII.GetString(stream.ToArray()));
    }

    [Theory]
    [InlineData("pacth", "patch")]
    [InlineData("--bakend", "--backend")]
    [InlineData("zork", null)]
    public void The_nearest_word_is_at_most_two_slips_away(string typed, string? meant) =>
        Assert.Equal(meant, CloseName.For(typed, ["patch", "plan", "--backend", "--json"]));
}
