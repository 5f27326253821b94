using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>Plans of running code: nothing is written before they are applied, and then what they said, or nothing.</summary>
public sealed unsafe class LivePlanTests
{
    [Fact]
    public void A_plan_writes_nothing_and_says_what_applying_it_does()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1), new SiteWish(2, 6, Start: 63));
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Direct);
        byte[] before = block.ToArray();
        int islands = code.Arena.Islands.Count;
        LivePlan plan = patcher.Plan(c => c.Use(code.Inlined));
        Assert.Equal(before, block.ToArray());
        Assert.Equal(islands, code.Arena.Islands.Count);
        Assert.Equal((2, 3, 1), (plan.Writes, plan.SlotWrites, plan.KeptIndirect));
        Assert.Equal(
            (3, 2, 3), (plan.Plan.Summary.Total, plan.Plan.Summary.Count(PatchAction.Inline), plan.Plan.Summary.Count(PatchAction.Slot)));
        Assert.Equal("2e b8 01 00 00 00", HexBytes.Format(plan.Plan[plan.Plan.IndexContaining(block[0].Address)].NewBytes)); // cs mov eax,1
        Assert.Equal(PatchReason.NeedsQuiescence, plan.Plan[plan.Plan.IndexContaining(block[2].Address)].Reason);
        VerifyResult verified = plan.Verify();
        Assert.Equal((5, 1, 0), (verified.Original, verified.Patched, verified.Others.Count));
        ApplyResult result = patcher.Apply(plan);
        Assert.Equal((2, 3), (result.Written, result.SlotsWritten));
        Assert.True(plan.Verify().IsPatched);
        foreach (SiteOutcome site in result.Outcomes)
        {
            Assert.Equal(code.Find(site).ToArray(), plan.Plan[plan.Plan.IndexContaining(site.Address)].NewBytes.ToArray());
        }
    }

    [Fact]
    public void A_plan_that_no_longer_fits_is_refused_and_nothing_is_written()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        CheckRefused(() => patcher.Switch(code.Nops));
        patcher.Switch(code.Direct);
        CheckRefused(() => code.EmitFunction(SiteWish.Aligned()));
        CheckRefused(() => patcher.Link(block[0], code.Five));

        void CheckRefused(Action meanwhile)
        {
            LivePlan plan = patcher.Plan(c => c.Use(code.Inlined));
            meanwhile();
            byte[] before = block.ToArray();
            Assert.False(patcher.TryApply(plan, null, out ApplyResult result));
            Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.PlanStale), (result.Status, result.Diagnostics[0].Code));
            Assert.Equal(before, block.ToArray());
        }
    }

    [Fact]
    public void A_slot_that_somebody_else_wrote_is_refused_as_a_site_is()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        LivePlan plan = patcher.Plan(c => c.Use(code.Inlined));
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        *(ulong*)code.Arena.Memory.WriteView(slots.AddressOf(code.First)) = code.Five.Value;
        byte[] before = block.ToArray();
        Assert.Equal(DiagnosticCodes.UnexpectedLiveBytes, patcher.TrySwitch(code.Inlined).Diagnostics[0].Code);
        Assert.False(patcher.TryApply(plan, null, out ApplyResult result));
        Assert.Equal(DiagnosticCodes.UnexpectedLiveBytes, result.Diagnostics[0].Code);
        Assert.Equal(before, block.ToArray());
        Assert.Single(plan.Verify().Others);
    }

    [Fact]
    public void Islands_are_placed_when_a_plan_is_applied()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        LivePlan plan = patcher.Plan(c => c.Use(code.Outlined));
        SiteDecision decision = plan.Plan[plan.Plan.IndexContaining(block[0].Address)];
        Assert.Equal("2e e9 00 00 00 00", HexBytes.Format(decision.NewBytes));
        Assert.Equal("in an island that has no place yet", decision.Outcome.Detail);
        Assert.Equal(0, code.Arena.Islands.Count);
        Assert.Equal(1, patcher.Apply(plan).Written);
        Assert.Equal(3, LiveCode.Call(block));
        patcher.Switch(code.Direct);
        LivePlan again = patcher.Plan(c => c.Use(code.Outlined));
        Assert.NotEqual("2e e9 00 00 00 00", HexBytes.Format(again.Plan[again.Plan.IndexContaining(block[0].Address)].NewBytes));
    }

    [Fact]
    public void Several_changes_are_one_batch_and_the_later_one_counts()
    {
        using var code = new LiveCode();
        CodeBlock a = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned(1));
        CodeBlock b = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned(1), SiteWish.Aligned(2));
        using LivePatcher patcher = code.Patcher(code.Direct);
        ApplyResult result = patcher.Apply(c => c
            .Use(code.Inlined)
            .Use(code.Nops, SiteScope.Slot(code.Layout[1]))
            .Revert(SiteScope.Sites(b[2]))
            .Link(new SiteLink(a[0], code.Five)));
        Assert.Equal((5, 5), (result.Count, result.Written));
        Assert.Equal(1, result.Barriers);
        Assert.Equal([LiveForm.Call, LiveForm.OneInstruction, LiveForm.OneInstruction, LiveForm.OneInstruction, LiveForm.Original],
            result.Outcomes.Select(o => code.Find(o).Form));
        Assert.Equal([LiveSiteState.Linked, LiveSiteState.Bound, LiveSiteState.Bound, LiveSiteState.Bound, LiveSiteState.Original],
            result.Outcomes.Select(o => code.Find(o).State));
        Assert.Equal(5, LiveCode.Call(a)); // linked, then nop
        Assert.Null(patcher.Current); // slots differ

        // A link outlives a switch, also one in the same batch; a revert undoes it.
        Assert.Equal(SiteChange.Written, patcher.Apply(c => c.Link(new SiteLink(b[0], code.Five)).Use(code.Direct)).Outcomes[2].Change);
        Assert.Equal(LiveSiteState.Linked, b[0].State);
        patcher.Apply(c => c.Link(new SiteLink(b[0], code.Two)).Revert());
        Assert.Equal(LiveSiteState.Original, b[0].State);
        code.Arena.Retire([a, b]);
    }

    [Fact]
    public void A_batch_of_several_changes_of_which_one_is_refused_writes_nothing()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned(1));
        using LivePatcher patcher = code.Patcher(code.Direct);
        byte[] before = block.ToArray();
        ApplyResult result = patcher.TryApply(c => c.Use(code.Inlined).Link(new SiteLink(block[1], 16)));
        Assert.Equal(ApplyStatus.Refused, result.Status);
        Assert.Equal(before, block.ToArray());
        Assert.Same(code.Direct, patcher.Current);
        Assert.False(patcher.TryPlan(
            c => c.Use(code.Inlined).Link(new SiteLink(block[1], 16)), null, out _, out IReadOnlyList<PatchDiagnostic> findings));
        Assert.Equal(DiagnosticCodes.TargetNotExecutable, findings[0].Code);
    }
}
