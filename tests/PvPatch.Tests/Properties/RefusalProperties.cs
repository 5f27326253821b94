using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Properties;

/// <summary>One bad site is enough: nothing is written, and the finding says where, what was found and what was expected.</summary>
public sealed class RefusalProperties
{
    private const int Cases = 250;

    [Fact]
    public void One_unknown_site_and_nothing_is_applied_or_reverted() =>
        PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        var random = new Random(scenario.Seed + 3);
        PatchPlan first = built.Plan(1);
        first.Apply(built.Image);
        PatchPlan plan = built.Plan(0, first);
        if (Corrupt(plan, built.Image, random) is not int bad)
        {
            return;
        }

        byte[][] before = built.Snapshot();
        foreach (bool apply in (bool[])[true, false])
        {
            bool done = apply
                ? plan.TryApply(built.Image, out ApplyResult result)
                : plan.TryRevert(built.Image, out result);
            Assert.False(done);
            result.AssertRefused(plan);
            Assert.Equal(before, built.Snapshot());
            PatchDiagnostic diagnostic = Assert.Single(result.Diagnostics);
            built.Image.TryGetBytes(plan[bad].Address, plan[bad].Length, out Span<byte> there);
            Assert.Equal((DiagnosticCodes.UnexpectedBytes, DiagnosticSeverity.Error), (diagnostic.Code, diagnostic.Severity));
            Assert.Equal((bad, plan[bad].Address), (diagnostic.SiteIndex, diagnostic.Address));
            Assert.Equal(HexBytes.Format(there), diagnostic.Found);
            Assert.Contains(HexBytes.Format(plan[bad].OldBytes), diagnostic.Expected, StringComparison.Ordinal);
            Assert.Contains(HexBytes.Format(plan[bad].NewBytes), diagnostic.Expected, StringComparison.Ordinal);
            Assert.Throws<PatchException>(() => apply ? plan.Apply(built.Image) : plan.Revert(built.Image));
            Assert.Equal(before, built.Snapshot());
        }
    });

    [Fact]
    public void A_site_outside_the_image_and_nothing_is_applied() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan plan = built.Plan(0);
        int dropped = new Random(scenario.Seed + 4).Next(Math.Max(1, built.Image.Segments.Count));
        CodeSegment? missing = built.Image.Segments.ElementAtOrDefault(dropped);
        int[] outside = [.. Enumerable.Range(0, plan.Count).Where(i => missing is not null && missing.Contains(plan[i].Address, 1))];
        if (outside.Length == 0)
        {
            return;
        }

        var part = new CodeImage(scenario.Bitness, built.Image.Segments.Where(s => s != missing));
        byte[][] before = built.Snapshot();
        Assert.False(plan.TryApply(part, out ApplyResult refused));
        Assert.Equal(before, built.Snapshot());
        Assert.All(refused.Diagnostics, d => Assert.Equal(DiagnosticCodes.PlanOutsideImage, d.Code));
        Assert.Equal(outside, refused.Diagnostics.Select(d => d.SiteIndex!.Value));
        Assert.Equal(outside.Select(i => plan[i].Address), refused.Diagnostics.Select(d => d.Address!.Value));
    });

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_site_that_holds_no_code_and_there_is_no_plan(bool patchedBefore) =>
        PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, scenario =>
    {
        var built = new BuiltScenario(scenario);
        if (built.Sites.Count == 0)
        {
            return;
        }

        PatchPlan? previous = null;
        if (patchedBefore)
        {
            previous = built.Plan(1);
            previous.Apply(built.Image);
        }

        var random = new Random(scenario.Seed + 5);
        int bad = random.Next(built.Sites.Count);
        PatchSite site = built.Sites[bad];
        built.Image.TryGetBytes(site.Address, site.Budget, out Span<byte> there);
        bool onlyTail = !patchedBefore && scenario.Sites[bad] is { Tail: not 0, Form: SiteForm.ThroughTable, Budget: > 6 };
        there[(onlyTail ? site.Budget - 1 : 0)..].Fill(0xf0); // lock prefixes without an instruction
        byte[][] before = built.Snapshot();
        Assert.False(new PatchPlanner().TryPlan(built.Image, built.Sites, built.Backends[0], built.Options(previous), out PatchPlan? plan,
            out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Null(plan);
        Assert.Equal(before, built.Snapshot());
        PatchDiagnostic diagnostic = Assert.Single(diagnostics, d => d.Severity == DiagnosticSeverity.Error);
        Assert.Equal((DiagnosticCodes.UnknownBytes, bad, site.Address), (diagnostic.Code, diagnostic.SiteIndex, diagnostic.Address));
        Assert.Equal(HexBytes.Format(there), diagnostic.Found);
        Assert.NotNull(diagnostic.Expected);
    });

    [Fact]
    public void A_call_through_another_slot_and_there_is_no_plan() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        int[] through = [
            .. Enumerable.Range(0, scenario.Sites.Count).Where(i => scenario.Sites[i] is { Form: SiteForm.ThroughTable, Budget: >= 6 })];
        if (through.Length == 0)
        {
            return;
        }

        var built = new BuiltScenario(scenario);
        int bad = through[new Random(scenario.Seed + 6).Next(through.Length)]; // specs are in order of address, as the table is
        PatchSite site = built.Sites[bad];
        built.Image.TryGetBytes(site.Address, site.Budget, out Span<byte> there);
        Span<byte> operand = there.Slice(2, 4);
        BitConverter.TryWriteBytes(operand, BitConverter.ToInt32(operand) + scenario.Bitness / 8); // the next word of the table
        Assert.False(new PatchPlanner()
            .TryPlan(built.Image, built.Sites, built.Backends[0], built.Options(), out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        PatchDiagnostic diagnostic = Assert.Single(diagnostics, d => d.Severity == DiagnosticSeverity.Error);
        Assert.Equal((DiagnosticCodes.WrongSlotOperand, bad, site.Address), (diagnostic.Code, diagnostic.SiteIndex, diagnostic.Address));
        Assert.StartsWith(HexBytes.Format(there), diagnostic.Found, StringComparison.Ordinal);
    });

    /// <summary>
    /// Changes one byte of one site so that no plan knows it; gives the site's index, or nothing where there are no sites.
    /// </summary>
    private static int? Corrupt(PatchPlan plan, CodeImage image, Random random)
    {
        if (plan.Count == 0)
        {
            return null;
        }

        int bad = random.Next(plan.Count);
        SiteDecision site = plan[bad];
        image.TryGetBytes(site.Address, site.Length, out Span<byte> there);
        int at = random.Next(site.Length);
        byte[] known = [.. new[] { site.OldBytes[at], site.NewBytes[at], there[at] }.Distinct()];
        there[at] = Enumerable.Range(0, 256).Select(b => (byte)b).First(b => !known.Contains(b));
        return bad;
    }
}
