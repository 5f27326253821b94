using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>Two plans laid one over the other do what applying both would.</summary>
public sealed class PlanComposerTests
{
    private static readonly PlanOutcome s_outcome = new() { Label = "alternative", Action = PatchAction.Inline };

    [Fact]
    public void A_composed_plan_is_the_first_applied_and_then_the_second()
    {
        var cases = new PlanCases(4);
        byte[] before = [.. cases.Code];
        PatchPlan first = cases.Plan(Operation.Call(PlanCases.Target));
        var over = new PlanBuilder("alternatives", "x", cases.Image);
        over.Add(first[1].Address, first[1].NewBytes, Bytes("fa 0f 1f 80 00 00 00 00"), s_outcome);
        over.Add(PlanCases.Start + 40, cases.Code.AsSpan(40, 20), new byte[20], s_outcome); // where the first plan has nothing
        PatchPlan composed = PlanComposer.Compose(first, over.Build());

        Assert.Equal(5, composed.Count);
        Assert.Equal(before.AsSpan(8, 8), composed[1].OldBytes);
        Assert.Equal("fa 0f 1f 80 00 00 00 00", HexBytes.Format(composed[1].NewBytes));
        Assert.Equal(("ops.s1", PatchAction.Inline), (composed[1].Label, composed[1].Action));

        composed.Apply(cases.Image);
        byte[] atOnce = [.. cases.Code];
        before.CopyTo(cases.Code, 0);
        first.Apply(cases.Image);
        over.Build().Apply(cases.Image);
        Assert.Equal(atOnce, cases.Code);
        composed.Revert(new CodeImage(PlanCases.Start, atOnce));
        Assert.Equal(before, atOnce);
    }

    [Fact]
    public void PV1004_sites_that_overlap_without_being_the_same()
    {
        var cases = new PlanCases(2);
        PatchPlan first = cases.Plan(Operation.Nop);
        var over = new PlanBuilder("alternatives", "x", cases.Image);
        over.Add(PlanCases.Start + 4, new byte[8], new byte[8], s_outcome);
        PatchException error = Assert.Throws<PatchException>(() => PlanComposer.Compose(first, over.Build()));
        Assert.Equal(
            (DiagnosticCodes.SiteOverlap, new VirtualAddress(PlanCases.Start + 4)), (error.Diagnostic.Code, error.Diagnostic.Address));
        Assert.Equal("0x00400000+8 and 0x00400004+8", error.Diagnostic.Found);
    }

    [Fact]
    public void PV4002_a_plan_made_for_other_bytes()
    {
        var cases = new PlanCases(2);
        PatchPlan first = cases.Plan(Operation.Nop);
        PatchPlan alsoForOriginals = cases.Plan(Operation.Call(PlanCases.Target));
        PatchException error = Assert.Throws<PatchException>(() => PlanComposer.Compose(first, alsoForOriginals));
        Assert.Equal(
            (DiagnosticCodes.UnexpectedBytes, new VirtualAddress(PlanCases.Start)), (error.Diagnostic.Code, error.Diagnostic.Address));
        Assert.Equal("0f 1f 84 00 00 00 00 00", error.Diagnostic.Found);
    }

    [Fact]
    public void A_builder_sorts_and_refuses_what_no_plan_may_hold()
    {
        var cases = new PlanCases(2);
        var builder = new PlanBuilder("b", "r", cases.Image);
        builder.Add(0x400010, new byte[4], new byte[4], s_outcome);
        builder.Add(0x400000, new byte[17], new byte[17], s_outcome);
        Assert.Throws<ArgumentException>(() => builder.Add(0x400020, new byte[4], new byte[5], s_outcome));
        Assert.Throws<ArgumentException>(() => builder.Add(0x400020, [], [], s_outcome));
        Assert.Throws<ArgumentException>(() => builder.Add(0x400020, new byte[255], new byte[255], s_outcome));
        PatchException error = Assert.Throws<PatchException>(builder.Build);
        Assert.Equal(DiagnosticCodes.SiteOverlap, error.Diagnostic.Code);
    }

    private static byte[] Bytes(string text) => HexBytes.TryParse(text, out byte[]? bytes) ? bytes : throw new FormatException(text);
}
