namespace PvPatch.Tests.Layering;

/// <summary>
/// The public surface is as it was agreed on: <c>PublicApi/PvPatch.txt</c>. Run with PVPATCH_UPDATE_SNAPSHOTS=1 to write the file anew, and look at the
/// difference before it is committed.
/// </summary>
public sealed class PublicApiTests
{
    [Fact]
    public void The_public_surface_of_PvPatch_is_the_one_written_down() =>
        Snapshot.AssertMatches("tests/PvPatch.Tests/PublicApi/PvPatch.txt", PublicApiText.Of(typeof(PatchDiagnostic).Assembly));

    [Fact]
    public void A_difference_is_shown_line_by_line()
    {
        string difference = Snapshot.Difference("a\nb\nc\nd\n", "a\nx\nc\nd\ne\n");
        Assert.Equal("- b\n+ x\n+ e", difference);
    }

    [Fact]
    public void The_surface_shows_what_a_caller_sees()
    {
        string text = PublicApiText.Of(typeof(PatchDiagnostic).Assembly);
        Assert.Contains("PvPatch.Plans: sealed class PatchPlan : IEnumerable,", text, StringComparison.Ordinal);
        Assert.Contains("    bool TryApply(CodeImage image, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics)\n", text, StringComparison.Ordinal);
        Assert.Contains("    const string UnknownBytes = \"PV3001\"\n", text, StringComparison.Ordinal);
        Assert.DoesNotContain("ThunkPlanner", text, StringComparison.Ordinal);
    }
}
