using PvPatch.Plans;

namespace PvPatch.Tests.Support;

internal static class ApplyResultChecks
{
    /// <summary>An image was written: so many sites, and so many held the bytes before.</summary>
    public static void AssertApplied(this ApplyResult result, int written, int alreadyThere)
    {
        Assert.Equal((ApplyStatus.Applied, true), (result.Status, result.Succeeded));
        Assert.Equal((written + alreadyThere, written, alreadyThere), (result.Count, result.Written, result.AlreadyThere));
        Assert.Empty(result.Diagnostics);
        Assert.Empty(result.Outcomes);
        Assert.Matches(
            $@"^{result.Target}: Applied, {written} of {result.Count} sites written, {alreadyThere} already there, [0-9]+\.[0-9] us$",
            result.ToString());
    }

    /// <summary>An image was left as it was.</summary>
    public static void AssertRefused(this ApplyResult result, PatchPlan plan)
    {
        Assert.Equal((ApplyStatus.Refused, false), (result.Status, result.Succeeded));
        Assert.Equal((plan.Count, 0, 0), (result.Count, result.Written, result.AlreadyThere));
        Assert.NotEmpty(result.Diagnostics);
        Assert.Matches($@"^{plan.Backend}: Refused, 0 of {plan.Count} sites written, [0-9]+\.[0-9] us$", result.ToString());
    }
}
