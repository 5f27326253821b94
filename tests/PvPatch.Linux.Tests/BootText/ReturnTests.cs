using PvPatch.Linux.BootText;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>Return sites, by feature and thunk.</summary>
public sealed class ReturnTests
{
    private const ulong FileThunk = TextSample.Code + 0x40;
    private const ulong ItsThunk = TextSample.Code + 0x80;
    private const ulong Chosen = TextSample.Code + 0xc0;
    private const ulong Site = TextSample.Code + 0x1000;

    [Theory]
    [InlineData(false, null, 0x00, "ret; int3; int3; int3; int3")]
    [InlineData(false, Chosen, 0x20, "ret; int3; int3; int3; int3")]
    [InlineData(true, Chosen, 0x00, "jmp thunk")]
    [InlineData(true, Chosen, 0x3f, "jmp thunk")]
    [InlineData(true, FileThunk, 0x20, "jmp thunk")]
    [InlineData(true, ItsThunk, 0x00, "jmp thunk")]
    [InlineData(true, ItsThunk, 0x1f, "jmp thunk")]
    [InlineData(true, ItsThunk, 0x20, "ret; int3; int3; int3; int3")]
    [InlineData(true, ItsThunk, 0x3f, "ret; int3; int3; int3; int3")]
    [InlineData(true, ItsThunk, 0x40, "jmp thunk")]
    public void A_return_site_becomes_a_return_or_goes_to_the_chosen_thunk(bool feature, ulong? thunk, int at, string expected)
    {
        ulong site = Site + (ulong)at;
        TextSample sample = Sample(site);
        sample.Features = feature ? [ReturnForm.Rethunk] : [];
        sample.ReturnThunk = thunk;
        Assert.Equal(TextSample.Assembled(expected, site, ("thunk", thunk ?? 0)),
            sample.Predict(TextRules.Linux612, TextMechanism.Return, site, 5));
    }

    [Fact]
    public void What_is_not_known_stays_open()
    {
        TextSample sample = Sample(Site);
        sample.Features = null;
        Assert.Equal("open", sample.Predict(TextRules.Linux612, TextMechanism.Return, Site, 5));
        sample.Features = [ReturnForm.Rethunk]; // and no thunk
        Assert.Equal("open", sample.Predict(TextRules.Linux612, TextMechanism.Return, Site, 5));
    }

    [Fact]
    public void A_site_that_jumps_elsewhere_in_the_file_is_refused()
    {
        TextSample sample = Sample(Site).PutBranch(Site, Chosen, 0xe9);
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux61, TextMechanism.Return);
        Assert.Equal(KernelDiagnosticCodes.TextSiteUnexpected, Assert.Single(findings).Code);
        Assert.Equal(TextMechanism.None, text.OwnerAt(Site));
    }

    [Fact]
    public void A_kernel_without_the_symbol_of_its_thunk_is_refused()
    {
        TextSample sample = new TextSample().PutBranch(Site, FileThunk, 0xe9).Record(".return_sites", Site);
        (_, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux61, TextMechanism.Return);
        Assert.Equal(KernelDiagnosticCodes.TextSymbolMissing, Assert.Single(findings).Code);
    }

    [Fact]
    public void Sites_outside_the_text_are_refused_and_counted_not_listed()
    {
        TextSample sample = Sample(Site).Record(".return_sites", [.. Enumerable.Repeat(TextSample.Data, 5000)]);
        (_, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux61, TextMechanism.Return);
        Assert.All(findings, static f => Assert.Equal(KernelDiagnosticCodes.TextRecordOutside, f.Code));
        Assert.InRange(findings.Count, 2, 200);
    }

    private static TextSample Sample(ulong site) => new TextSample().PutBranch(site, FileThunk, 0xe9).Record(".return_sites", site)
        .Symbol("__x86_return_thunk", FileThunk).Symbol("its_return_thunk", ItsThunk);
}
