using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>A batch that fails at any of its steps: everything is taken back, the code runs, and the result says what happened.</summary>
public sealed unsafe class FaultInjectionTests
{
    [Fact]
    public void An_exception_at_any_step_of_a_live_batch_takes_everything_back() => FailEverywhere(new SwitchOptions());

    [Fact]
    public void An_exception_at_any_step_of_a_quiescent_batch_takes_everything_back() => FailEverywhere(LiveCode.Quiescent);

    [Fact]
    public void An_exception_at_any_step_of_a_live_batch_of_links_takes_everything_back() => FailLinksEverywhere(new SwitchOptions());

    [Fact]
    public void An_exception_at_any_step_of_a_quiescent_batch_of_links_takes_everything_back() => FailLinksEverywhere(LiveCode.Quiescent);

    [Fact]
    public void An_exception_while_a_body_drains_takes_everything_back()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 15, Start: 0, Forwarding: true));
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Outlined, LiveCode.Quiescent with { InPlace = true });
        Assert.Equal(LiveForm.InPlace, block[0].Form);
        CheckFailures(code, patcher, [block], () => patcher.TrySwitch(code.Direct), expected: 3, after: 2);
    }

    [Fact]
    public void A_site_that_changes_under_the_patchers_hands_makes_it_take_back_the_batch()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 5).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        byte[] before = LiveCode.Snapshot(blocks);
        byte* at = code.Arena.Memory.WriteView(blocks[3][0].Address);
        byte first = *at;
        patcher.Probe = (step, _) => *at = step == PatchStep.Planned ? (byte)0xcc : *at;
        ApplyResult result = patcher.TrySwitch(code.Inlined);
        patcher.Probe = null;
        Assert.Equal(ApplyStatus.RolledBack, result.Status);
        Assert.Equal(DiagnosticCodes.SwapFailed, result.Diagnostics[0].Code);
        Assert.Equal([SiteChange.RolledBack, SiteChange.RolledBack, SiteChange.RolledBack, SiteChange.NotWritten, SiteChange.NotWritten],
            Enumerable.Range(0, 5).Select(i => result.Outcomes[i].Change));
        *at = first;
        Assert.Equal(before, LiveCode.Snapshot(blocks));
        Assert.Equal(2, LiveCode.Call(blocks[0]));
        Assert.Equal(5, patcher.Switch(code.Inlined).Written);
    }

    [Fact]
    public void Bytes_nobody_put_there_are_refused_with_what_was_found()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [
            code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Straddling()), code.EmitFunction(SiteWish.Aligned())];
        using LivePatcher patcher = code.Patcher(code.Inlined);
        foreach (int index in (int[])[0, 1])
        {
            byte* at = code.Arena.Memory.WriteView(blocks[index][0].Address);
            byte first = *at;
            *at = 0xcc; // a debugger's breakpoint
            byte[] before = LiveCode.Snapshot(blocks);
            ApplyResult result = patcher.TrySwitch(code.Direct);
            Assert.Equal(ApplyStatus.Refused, result.Status);
            Assert.Equal(DiagnosticCodes.UnexpectedLiveBytes, result.Diagnostics[0].Code);
            Assert.Equal("cc b8 01 00 00 00", result.Diagnostics[0].Found); // was cs mov eax,1
            Assert.Equal(before, LiveCode.Snapshot(blocks));
            *at = first;
        }

        Assert.Equal(3, patcher.Switch(code.Direct).Written);
    }

    [Fact]
    public void What_can_not_be_taken_back_is_reported_site_by_site()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 3).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        byte* first = code.Arena.Memory.WriteView(blocks[0][0].Address);
        patcher.Probe = (step, index) =>
        {
            if (step == PatchStep.Store && index == 2)
            {
                *first = 0x3e; // the site that was written is changed by someone else
                throw new InvalidOperationException("injected");
            }
        };
        ApplyResult result = patcher.TrySwitch(code.Inlined);
        Assert.Equal(ApplyStatus.Faulted, result.Status);
        Assert.Equal([SiteChange.Faulted, SiteChange.RolledBack, SiteChange.NotWritten],
            Enumerable.Range(0, 3).Select(i => result.Outcomes[i].Change));
        Assert.Equal(LiveSiteState.Faulted, blocks[0][0].State);
        Assert.Equal(2, LiveCode.Call(blocks[1]));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void A_barrier_that_fails_between_guard_and_head_is_replaced_by_a_weaker_one(int before)
    {
        using var platform = new FaultyPlatform { CountsNativeBarriers = true };
        using var code = new LiveCode(platform);
        CodeBlock block = code.EmitFunction(SiteWish.Straddling());
        platform.NativeBarriersLeft = 100;
        using LivePatcher patcher = code.Patcher(code.Direct);
        platform.NativeBarriersLeft = before;
        platform.ManagedBarrierFails = true;
        ApplyResult result = patcher.Switch(code.Inlined);
        Assert.Equal(BarrierKind.Weak, result.Barrier);
        Assert.Equal(3, result.Barriers);
        Assert.Contains(result.Diagnostics, static d => d.Code == DiagnosticCodes.WeakBarrier && d.Severity == DiagnosticSeverity.Warning);
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void Without_a_barrier_live_switches_are_refused_and_quiescent_ones_serve()
    {
        using var platform = new FaultyPlatform { Kind = BarrierKind.None, ManagedBarrierFails = true, HasNativeBarrier = false };
        using var code = new LiveCode(platform);
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        ApplyResult result = patcher.TrySwitch(code.Inlined);
        Assert.Equal(DiagnosticCodes.NoBarrier, result.Diagnostics[0].Code);
        Assert.Equal(2, LiveCode.Call(block));
        patcher.Switch(code.Inlined, LiveCode.Quiescent);
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void A_weak_barrier_is_reported_and_serves()
    {
        using var platform = new FaultyPlatform { Kind = BarrierKind.Weak };
        using var code = new LiveCode(platform);
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling());
        Assert.Equal(BarrierKind.Weak, code.Arena.Barrier);
        using LivePatcher patcher = code.Patcher(code.Direct);
        Assert.Equal(BarrierKind.Weak, patcher.Switch(code.Inlined).Barrier);
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void Guards_that_spin_are_not_held_by_managed_code_and_those_that_forward_are()
    {
        using var platform = new FaultyPlatform { Kind = BarrierKind.Weak, HasNativeBarrier = false };
        using var code = new LiveCode(platform);
        CodeBlock spinning = code.EmitFunction(SiteWish.Straddling());
        CodeBlock forwarding = code.EmitFunction(SiteWish.Straddling(forwarding: true));
        using LivePatcher patcher = code.Patcher();
        ApplyResult result = patcher.Switch(code.Inlined);
        Assert.Equal([SiteChange.KeptIndirect, SiteChange.Written], Enumerable.Range(0, 2).Select(i => result.Outcomes[i].Change));
        Assert.Equal(1, LiveCode.Call(spinning));
        Assert.Equal(1, LiveCode.Call(forwarding));
        Assert.Equal(3, result.Barriers);
    }

    [Fact]
    public void A_batch_cancelled_at_any_step_is_taken_back()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1));
        using LivePatcher patcher = code.Patcher(code.Direct);
        byte[] before = block.ToArray();
        foreach (PatchStep cancelAt in (PatchStep[])[
            PatchStep.Planned, PatchStep.Slot, PatchStep.Store, PatchStep.Guard, PatchStep.Barrier, PatchStep.Publish])
        {
            using var cancel = new CancellationTokenSource();
            patcher.Probe = (step, _) =>
            {
                if (step == cancelAt)
                {
                    cancel.Cancel();
                }
            };
            ApplyResult result = patcher.TrySwitch(code.Outlined, new SwitchOptions { Cancellation = cancel.Token });
            Assert.Equal(ApplyStatus.RolledBack, result.Status);
            Assert.Equal("the batch was cancelled", result.Diagnostics[0].Message);
            Assert.Equal(before, block.ToArray());
        }

        patcher.Probe = null;
        Assert.True(patcher.TrySwitch(code.Outlined).Succeeded);
    }

    private static void FailEverywhere(SwitchOptions options)
    {
        using var code = new LiveCode();
        CodeBlock[] blocks =
        [
            code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1)),
            code.EmitFunction(SiteWish.Straddling(2, 11, forwarding: true), new SiteWish(0, 14, SitePlacement.InsideAligned16)),
        ];
        using LivePatcher patcher = code.Patcher(code.Direct);
        CheckFailures(code, patcher, blocks, () => patcher.TrySwitch(code.Outlined, options), expected: 2, after: 6);
    }

    private static void FailLinksEverywhere(SwitchOptions options)
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new LiveCode();
        CodeBlock[] blocks =
        [
            code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1)),
            code.EmitFunction(
                SiteWish.Straddling(2, 11, forwarding: true), new SiteWish(0, 14, SitePlacement.InsideAligned16), SiteWish.Aligned()),
        ];
        using LivePatcher patcher = code.Patcher(code.Direct);
        patcher.Link(blocks[1][2], code.Five); // one is linked before, and unlinked by the batch
        VirtualAddress far = LiveCode.EmitHelper(low, 8);
        SiteLink[] links =
        [
            new(blocks[0][0], code.Two), new(blocks[0][1], code.Five), new(blocks[1][0], far),
            new(blocks[1][1], code.Five, RegisterSet.Rax | RegisterSet.Rcx), new(blocks[1][2], null),
        ];
        CheckFailures(code, patcher, blocks, () => patcher.TryLink(links, options), expected: 2, after: 5);
        Assert.Equal([(LiveSiteState.Linked, code.Two), (LiveSiteState.Linked, code.Five)],
            Enumerable.Range(0, 2).Select(i => (blocks[0][i].State, blocks[0][i].Target!.Value)));
        Assert.Equal([far, code.Five, code.Two], Enumerable.Range(0, 3).Select(i => blocks[1][i].Target!.Value));
        Assert.Equal(
            [LiveSiteState.Linked, LiveSiteState.Linked, LiveSiteState.Bound], Enumerable.Range(0, 3).Select(i => blocks[1][i].State));
    }

    private static void CheckFailures(
        LiveCode code, LivePatcher patcher, CodeBlock[] blocks, Func<ApplyResult> batch, long expected, long after)
    {
        byte[] before = LiveCode.Snapshot(blocks);
        LiveSite[] sites = [.. blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i]))];
        (LiveSiteState, LiveForm, VirtualAddress?)[] states = [.. sites.Select(static s => (s.State, s.Form, s.Target))];
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        VirtualAddress[] functions = [.. code.Layout.Slots.Select(slots.FunctionOf)];
        Backend? current = patcher.Current;
        for (int failAt = 0; ; failAt++)
        {
            Assert.True(failAt < 100);
            int steps = 0;
            bool failed = false;
            PatchStep at = default;
            patcher.Probe = (step, _) =>
            {
                if (!failed && steps++ == failAt)
                {
                    failed = true;
                    at = step;
                    throw new InvalidOperationException("injected");
                }
            };
            ApplyResult result = batch();
            if (!failed)
            {
                Assert.Equal(ApplyStatus.Applied, result.Status);
                Assert.True(failAt >= 5, "all steps were tried");
                break;
            }

            Assert.True(result.Status == ApplyStatus.RolledBack, $"{at}: {result.Status}");
            Assert.Equal(DiagnosticCodes.BatchFaulted, result.Diagnostics[0].Code);
            Assert.Equal(before, LiveCode.Snapshot(blocks));
            Assert.Equal(functions, code.Layout.Slots.Select(slots.FunctionOf));
            Assert.Same(current, patcher.Current);
            Assert.Equal(states, sites.Select(static s => (s.State, s.Form, s.Target)));
            Assert.Equal(expected, LiveCode.Call(blocks[0]));
            Assert.All(Enumerable.Range(0, result.Count), i => Assert.Contains(
                result.Outcomes[i].Change, (SiteChange[])[SiteChange.NotWritten, SiteChange.RolledBack, SiteChange.AlreadyThere]));
        }

        patcher.Probe = null;
        Assert.NotEqual(before, LiveCode.Snapshot(blocks));
        Assert.Equal(after, LiveCode.Call(blocks[0]));
    }
}
