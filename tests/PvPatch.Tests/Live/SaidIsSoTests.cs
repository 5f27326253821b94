using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>
/// When a switch says applied, every slot and site of blocks emitted before, meanwhile and afterwards does what it says; else it, or the
/// emit, is refused.
/// </summary>
public sealed class SaidIsSoTests
{
    private static readonly RegisterSet s_wide = RegisterSet.Rax | RegisterSet.Rcx;

    [Fact]
    public void A_switch_between_an_emits_decision_and_its_registration_can_not_come_in()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock? emitted = null;
        using var emitting = new ManualResetEventSlim();
        var emitter = new Thread(() =>
        {
            emitting.Set();
            emitted = code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax));
        });
        Backend wild = code.Direct.Derive("wild", b => b.Call("t.first", code.Two, "two", s_wide));
        patcher.Probe = (step, _) =>
        {
            if (step == PatchStep.Slot && emitter.ThreadState == ThreadState.Unstarted)
            {
                emitter.Start();
                emitting.Wait();
                Assert.False(emitter.Join(200)); // it waits for the batch, whose functions were decided without its site
            }
        };
        code.EmitFunction(new SiteWish(0, Clobbers: s_wide)); // so that the slot's function may destroy rcx
        patcher.Switch(code.Inlined);
        emitter.Join();
        patcher.Probe = null;
        patcher.Switch(wild);
        Assert.NotNull(emitted);
        Assert.NotEqual(code.Two, code.Arena.SlotsOf(code.Layout).FunctionOf(code.First)); // a thunk that saves rcx
    }

    [Fact]
    public void Emit_against_switch_leaves_every_slot_with_the_function_of_the_backend_that_is_current()
    {
        int seed = Environment.TickCount;
        var random = new Random(seed);
        for (int trial = 0; trial < 150; trial++)
        {
            using var code = new LiveCode(size: 1 << 18);
            SlotTable slots = code.Arena.SlotsOf(code.Layout);
            Backend one = code.Direct.Derive("one", b => b.Call("t.first", code.Two, "two", s_wide));
            Backend two = code.Direct.Derive("two", b => b.Call("t.first", code.Five, "five", s_wide));
            code.EmitFunction(new SiteWish(0, Clobbers: s_wide));
            using LivePatcher patcher = random.Next(2) == 0 ? code.Patcher() : code.Patcher(one);
            using var start = new Barrier(2);
            int spins = random.Next(2000);
            var switcher = new Thread(() =>
            {
                start.SignalAndWait();
                Thread.SpinWait(spins);
                patcher.Switch(two, options: new SwitchOptions { WaitForOther = true });
            });
            switcher.Start();
            start.SignalAndWait();
            CodeBlock narrow = code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax));
            switcher.Join();
            Assert.Same(two, patcher.Current);
            VirtualAddress function = slots.FunctionOf(code.First);
            Assert.True(function != code.Two && function != code.Five, $"seed {seed}, trial {trial}: not a thunk");
            Assert.True(code.Arena.Functions.TargetOf(function) == code.Five, $"seed {seed}, trial {trial}: another backend's function");
            Assert.Equal(5, LiveCode.Call(narrow));
        }
    }

    [Fact]
    public void Slots_keep_to_what_new_sites_allow_when_their_patcher_is_gone()
    {
        using var code = new LiveCode();
        code.EmitFunction(new SiteWish(0, Clobbers: s_wide));
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        Backend wild = code.Direct.Derive("wild", b => b.Call("t.first", code.Two, "two", s_wide));
        code.Patcher(wild).Dispose();
        Assert.Equal(code.Two, slots.FunctionOf(code.First));
        code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax));
        Assert.NotEqual(code.Two, slots.FunctionOf(code.First));
        using LivePatcher next = code.Patcher();
        Assert.Same(wild, next.Current);
    }

    [Fact]
    public void A_backend_whose_function_a_slot_can_not_take_is_refused_though_nobody_goes_through_the_slot()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor();
        CodeBlock narrow = code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax));
        Backend vectors = code.Direct.Derive("vectors", b => b.Call("t.first", code.Five, "five", RegisterSet.Rax | RegisterSet.Vector));
        executor.Enter(); // perhaps in the block that goes
        code.Arena.Retire(narrow);
        ApplyResult result = default;
        var other = new Thread(() => result = patcher.TrySwitch(vectors));
        other.Start();
        other.Join();
        Assert.Equal(DiagnosticCodes.SlotFunction, result.Diagnostics[0].Code);
        Assert.Same(code.Direct, patcher.Current);
        executor.Leave();
        Assert.True(code.Arena.Reclaim() > 0);
        patcher.Switch(vectors); // what the retired block asked for is forgotten
        Assert.Equal(5, LiveCode.Call(code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax | RegisterSet.Vector))));
    }

    [Fact]
    public void What_a_refused_emit_asked_for_is_forgotten()
    {
        using var code = new LiveCode();
        RegisterSet all = RegisterSet.Rax | RegisterSet.Vector;
        code.EmitFunction(new SiteWish(0, Clobbers: all));
        Backend vectors = code.Direct.Derive("vectors", b => b.Call("t.first", code.Five, "five", all));
        using LivePatcher patcher = code.Patcher(vectors);
        PatchException refused = Assert.Throws<PatchException>(() => code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax)));
        Assert.Equal(DiagnosticCodes.SlotFunction, refused.Diagnostic.Code);
        patcher.Switch(code.Direct);
        patcher.Switch(vectors);
        Assert.Equal(5, LiveCode.Call(code.EmitFunction(new SiteWish(0, Clobbers: all))));
    }

    [Fact]
    public void Bind_leaves_sites_indirect_that_no_live_switch_could_change_again()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction(new SiteWish(0, 6, Start: 63), new SiteWish(1, 20), SiteWish.Aligned(2));
        ApplyResult bound = patcher.Bind(block);
        Assert.Equal([SiteChange.KeptIndirect, SiteChange.KeptIndirect, SiteChange.Written], bound.Outcomes.Select(static o => o.Change));
        Assert.Equal((1, 2), (bound.Written, bound.KeptIndirect));
        Assert.Equal(2, LiveCode.Call(block));
        Assert.True(patcher.Switch(code.Inlined).Succeeded); // live
        Assert.Equal(1, LiveCode.Call(block));
        patcher.Apply(c => c.Bind(block), LiveCode.Quiescent);
        Assert.NotEqual(LiveForm.Original, block[0].Form); // at quiescence it is asked for
    }

    [Fact]
    public void Bind_leaves_guarded_sites_indirect_where_only_managed_code_can_run_the_barrier_and_the_reason_is_given()
    {
        using var platform = new FaultyPlatform { Kind = BarrierKind.Weak, HasNativeBarrier = false };
        using var code = new LiveCode(platform);
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction(SiteWish.Straddling());
        Assert.Equal(1, patcher.Bind(block).KeptIndirect);
        Assert.True(patcher.Switch(code.Inlined).Succeeded);
        Assert.Equal(1, LiveCode.Call(block));
        patcher.Switch(code.Direct, LiveCode.Quiescent);
        PatchDiagnostic reason = patcher.TrySwitch(code.Inlined).Diagnostics[0];
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, reason.Code);
        Assert.Contains("only managed code can run the barrier", reason.Message, StringComparison.Ordinal);
        Assert.Contains("InsideAligned8", reason.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void A_block_that_another_arenas_site_is_linked_to_can_not_be_retired()
    {
        using var code = new LiveCode();
        using var other = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock site = code.EmitFunction(SiteWish.Aligned());
        CodeBlock target = other.EmitFunction(SiteWish.Aligned(1));
        using LivePatcher others = other.Patcher(other.Direct);
        patcher.Link(site[0], target.Address);
        Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => other.Arena.Retire(target)).Diagnostic.Code);
        Assert.Equal(1, patcher.Unlink(SiteScope.LinkedInto(target)).Written);
        other.Arena.Retire(target);
        Assert.Equal(DiagnosticCodes.BlockRetired, patcher.TryLink([new(site[0], target.Address)]).Diagnostics[0].Code);
        Assert.Equal(2, LiveCode.Call(site));
    }

    [Fact]
    public void A_link_that_was_taken_back_keeps_no_block_from_being_retired()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock site = code.EmitFunction(SiteWish.Aligned());
        CodeBlock[] targets = [code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Aligned())];
        patcher.Link(site[0], targets[0].Address);
        patcher.Probe = static (step, _) => _ = step == PatchStep.Publish ? throw new InvalidOperationException("injected") : 0;
        Assert.Equal(ApplyStatus.RolledBack, patcher.TryLink([new(site[0], targets[1].Address)]).Status);
        Assert.Equal(ApplyStatus.RolledBack, patcher.TryLink([new(site[0], targets[0].Address + 1)]).Status);
        patcher.Probe = null;
        code.Arena.Retire(targets[1]);
        Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(targets[0])).Diagnostic.Code);
    }

    [Fact]
    public void A_site_whose_target_is_out_of_reach_is_not_counted_as_written()
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new LiveCode();
        VirtualAddress far = LiveCode.EmitHelper(low, 8);
        Assert.False(code.Arena.Reaches(far));
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        ApplyResult result = patcher.Switch(code.Direct.Derive("far", b => b.Call("t.first", far, "far", RegisterSet.Rax)));
        Assert.Equal((0, 1), (result.Written, result.MadeIndirect));
        Assert.Equal((SiteChange.MadeIndirect, PatchReason.OutOfReach), (result.Outcomes[0].Change, result.Outcomes[0].Reason));
        Assert.Equal(8, LiveCode.Call(block));
    }

    [Fact]
    public void An_infinite_timeout_waits()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        using var inside = new ManualResetEventSlim();
        var runner = new Thread(() =>
        {
            using Executor executor = code.Arena.RegisterExecutor();
            executor.Enter();
            inside.Set();
            Thread.Sleep(50);
            executor.Leave();
        });
        runner.Start();
        inside.Wait();
        Assert.True(patcher.Switch(code.Inlined, LiveCode.Quiescent with { Timeout = Timeout.InfiniteTimeSpan }).Succeeded);
        runner.Join();
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void A_barrier_of_the_gate_that_fails_is_replaced_and_told_of()
    {
        using var platform = new FaultyPlatform();
        using var code = new LiveCode(platform);
        code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor();
        platform.ManagedBarrierFails = true;
        patcher.Probe = (_, _) => platform.ManagedBarrierFails = false; // the gate is closed by then
        ApplyResult result = patcher.Switch(code.Inlined, LiveCode.Quiescent);
        Assert.Equal(BarrierKind.Weak, result.Barrier);
        Assert.Contains(result.Diagnostics, static d => d.Code == DiagnosticCodes.WeakBarrier);
    }
}
