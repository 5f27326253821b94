using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>Executors, safepoints, grace periods, draining, and what waits for them.</summary>
public sealed unsafe class QuiescenceTests
{
    private static readonly TimeSpan s_short = TimeSpan.FromMilliseconds(30);
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(60);

    [Fact]
    public void A_retired_block_is_reused_only_after_everyone_inside_has_passed_a_safepoint()
    {
        using var code = new LiveCode();
        using Executor first = code.Arena.RegisterExecutor("first");
        using Executor second = code.Arena.RegisterExecutor("second");
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        byte[] before = block.ToArray();
        first.Enter();
        second.Enter();
        code.Arena.Retire(block);
        Assert.Equal(0, code.Arena.Reclaim());
        first.Safepoint();
        Assert.Equal(0, code.Arena.Reclaim());
        Assert.Equal(before, code.Arena.Memory.Span(block.Address, block.Length).ToArray());
        second.Leave();
        second.Enter(); // inside again, but not since then
        Assert.True(code.Arena.Reclaim() > 0);
        Assert.All(code.Arena.Memory.Span(block.Address, block.Length).ToArray(), static b => Assert.Equal(0xcc, b));
        Assert.Equal(block.Address, code.EmitFunction(new SiteWish(0)).Address);
        first.Leave();
        second.Leave();
    }

    [Fact]
    public void Room_between_blocks_in_use_is_reused_for_blocks_of_the_same_size()
    {
        using var code = new LiveCode();
        using Executor executor = code.Arena.RegisterExecutor();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 100).Select(_ => code.EmitFunction(new SiteWish(0), new SiteWish(1, 15)))];
        CodeBlock[] retired = [.. blocks.Where((_, i) => i % 2 == 0)];
        code.Arena.Retire(retired);
        CodeBlock[] again = [.. retired.Select(_ => code.EmitFunction(new SiteWish(2), new SiteWish(0, 15)))];
        Assert.Equal(retired.Select(static b => b.Address), again.Select(static b => b.Address));
        using LivePatcher patcher = code.Patcher(code.Outlined);
        Assert.All(again, static b => Assert.Equal(6, LiveCode.Call(b)));
    }

    [Fact]
    public void Blocks_are_retired_together_for_one_barrier_or_not_at_all()
    {
        using var platform = new FaultyPlatform();
        using var code = new LiveCode(platform);
        using Executor executor = code.Arena.RegisterExecutor();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 10).Select(_ => code.EmitFunction(new SiteWish(0)))];
        CodeBlock[] twice = [blocks[0], blocks[1], blocks[0]];
        Assert.Equal(DiagnosticCodes.BlockRetired, Assert.Throws<PatchException>(() => code.Arena.Retire(twice)).Diagnostic.Code);
        Assert.All(blocks, static b => Assert.False(b.IsRetired));
        long used = code.Arena.Used;
        int barriers = platform.Barriers;
        code.Arena.Retire(blocks);
        Assert.Equal(1, platform.Barriers - barriers);
        Assert.All(blocks, static b => Assert.True(b.IsRetired));
        Assert.Equal(blocks.Sum(static b => b.Taken), used - code.Arena.Used);
        Assert.Empty(code.Arena.Blocks.Intersect(blocks));
        Assert.Equal(DiagnosticCodes.BlockRetired, Assert.Throws<PatchException>(() => code.Arena.Retire(blocks)).Diagnostic.Code);
    }

    [Fact]
    public void Generated_code_can_pass_a_safepoint_itself()
    {
        using var code = new LiveCode();
        using Executor executor = code.Arena.RegisterExecutor();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        var a = new Assembler(64);
        a.mov(rax, executor.CounterAddress.Value);
        a.add(__qword_ptr[rax], 2);
        a.ret();
        CodeBlock safepoint = code.Arena.Emit(a, new SiteEmitter(code.Layout));
        executor.Enter();
        code.Arena.Retire(block);
        Assert.Equal(0, code.Arena.Reclaim());
        LiveCode.Call(safepoint);
        Assert.True(code.Arena.Reclaim() > 0);
        Assert.True(executor.IsInside);
        executor.Leave();
        Assert.False(executor.IsInside);
    }

    [Fact]
    public void Retired_blocks_take_their_islands_with_them()
    {
        using var code = new LiveCode();
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Outlined);
        patcher.Bind(code.EmitFunction(new SiteWish(0)));
        CodeBlock block = code.EmitFunction(new SiteWish(0), new SiteWish(1));
        patcher.Bind(block);
        Assert.Equal(3, code.Arena.Islands.Count);
        code.Arena.Retire(block);
        Assert.Equal(1, code.Arena.Islands.Count);
    }

    [Fact]
    public void A_body_of_several_instructions_is_not_overwritten_under_a_thread_that_is_inside_it()
    {
        // The body spins on a flag between its instructions: a thread can be parked in the middle of it.
        using var code = new LiveCode();
        long* flag = stackalloc long[1];
        *flag = 0;
        ulong at = (ulong)flag;
        Backend parked = code.Direct.Derive("parked", b => b.Inline("t.first", a =>
        {
            Label again = a.CreateLabel();
            a.Label(ref again);
            a.cmp(__qword_ptr[rdi], 0);
            a.je(again);
            a.mov(eax, 9);
        }));
        CodeBlock block = code.EmitFunction(new SiteWish(0, 15, Start: 0, Forwarding: true, Clobbers: RegisterSet.Rax | RegisterSet.Flags));
        using LivePatcher patcher = code.Patcher();
        Executor executor = code.Arena.RegisterExecutor("parked");
        patcher.Switch(parked, LiveCode.Quiescent with { InPlace = true });
        byte[] inPlace = block.ToArray();
        Assert.Equal(LiveForm.InPlace, block[0].Form);

        long result = 0;
        var thread = new Thread(() =>
        {
            executor.Enter();
            result = LiveCode.Call(block, (long)at);
            executor.Leave();
        });
        thread.Start();
        SpinWait.SpinUntil(() => executor.IsInside);
        Thread.Sleep(20);

        // Nobody leaves: the wait ends, and the body is as it was.
        ApplyResult refused = patcher.TrySwitch(code.Direct, new SwitchOptions { Timeout = s_short });
        Assert.Equal(ApplyStatus.RolledBack, refused.Status);
        Assert.Equal(DiagnosticCodes.GraceTimeout, refused.Diagnostics[0].Code);
        Assert.Equal(inPlace, block.ToArray());
        Assert.True(thread.IsAlive);

        // While it drains, new entries are forwarded through the slot and do not wait.
        ApplyResult done = default;
        var switcher = new Thread(() => done = patcher.TrySwitch(code.Direct, new SwitchOptions { Timeout = s_long }));
        switcher.Start();
        SpinWait.SpinUntil(() => block.ToArray()[0] == 0xeb || block[0].ToArray()[0] == 0xeb);
        Assert.Equal(inPlace[(int)(block[0].Address - block.Address) + 2], block[0].ToArray()[2]);
        *flag = 1;
        thread.Join();
        switcher.Join();
        Assert.Equal(9, result);
        Assert.Equal(ApplyStatus.Applied, done.Status);
        Assert.Equal(2, LiveCode.Call(block, (long)at));
        executor.Dispose();
    }

    [Fact]
    public void A_cancelled_wait_ends_at_once_and_nothing_is_changed()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 15, Start: 0, Forwarding: true));
        using LivePatcher patcher = code.Patcher();
        Executor executor = code.Arena.RegisterExecutor();
        patcher.Switch(code.Outlined, LiveCode.Quiescent with { InPlace = true });
        byte[] before = block.ToArray();
        using var leave = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            leave.Wait();
            executor.Leave();
        });
        thread.Start();
        SpinWait.SpinUntil(() => executor.IsInside);
        foreach (SwitchMode mode in (SwitchMode[])[SwitchMode.Live, SwitchMode.Quiescent])
        {
            using var cancel = new CancellationTokenSource();
            cancel.CancelAfter(20);
            ApplyResult result = patcher.TrySwitch(
                code.Direct, new SwitchOptions { Mode = mode, Timeout = s_long, Cancellation = cancel.Token });
            Assert.False(result.Succeeded);
            Assert.True(result.Elapsed < s_long);
            Assert.Equal(before, block.ToArray());
        }

        leave.Set();
        thread.Join();
        Assert.True(patcher.TrySwitch(code.Direct).Succeeded);
        executor.Dispose();
    }

    [Fact]
    public void A_body_of_several_instructions_without_a_forwarding_island_waits_for_quiescence()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 8, Start: 0));
        using LivePatcher patcher = code.Patcher();
        using Executor executor = code.Arena.RegisterExecutor();
        patcher.Switch(code.Outlined, LiveCode.Quiescent with { InPlace = true });
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, patcher.TrySwitch(code.Direct).Diagnostics[0].Code);
        Assert.Equal(3, LiveCode.Call(block));
        patcher.Switch(code.Direct, LiveCode.Quiescent);
        Assert.Equal(2, LiveCode.Call(block));
    }

    [Fact]
    public void A_quiescent_switch_waits_for_executors_and_keeps_them_out()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher(code.Direct);
        Executor executor = code.Arena.RegisterExecutor("worker");
        using var entered = new ManualResetEventSlim();
        using var leave = new ManualResetEventSlim();
        var results = new List<long>();
        var thread = new Thread(() =>
        {
            executor.Enter();
            entered.Set();
            leave.Wait();
            results.Add(LiveCode.Call(block));
            executor.Safepoint(); // waits here
            results.Add(LiveCode.Call(block));
            executor.Leave();
        });
        thread.Start();
        entered.Wait();
        ApplyResult refused = patcher.TrySwitch(code.Inlined, LiveCode.Quiescent with { Timeout = s_short });
        Assert.Equal(DiagnosticCodes.NotQuiescent, refused.Diagnostics[0].Code);
        Assert.Contains("worker", refused.Diagnostics[0].Message, StringComparison.Ordinal);
        Assert.Equal(DiagnosticCodes.NotQuiescent,
            patcher.TrySwitch(code.Inlined, new SwitchOptions { Mode = SwitchMode.NotEntered }).Diagnostics[0].Code);
        patcher.Probe = (step, _) =>
        {
            if (step == PatchStep.Store)
            {
                Assert.False(executor.IsInside);
            }
        };
        var switcher = new Thread(() => patcher.Switch(code.Inlined, LiveCode.Quiescent with { Timeout = s_long }));
        switcher.Start();
        SpinWait.SpinUntil(() => code.Arena.Executors.GateIsClosed);
        leave.Set();
        switcher.Join();
        thread.Join();
        Assert.Equal([2, 1], results);
        executor.Dispose();
    }

    [Fact]
    public void Paired_operations_switched_at_quiescence_never_come_from_two_backends()
    {
        // A function with two sites gives 2+2 or 1+1 in the tens and units, whatever is switched meanwhile.
        using var code = new LiveCode();
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        a.sub(rsp, 8);
        sites.Emit(a, code.Layout[0], clobbers: RegisterSet.Rax);
        a.lea(ecx, __[rax + rax * 8]);
        a.add(ecx, eax);
        sites.Emit(a, code.Layout[1], clobbers: RegisterSet.Rax);
        a.add(eax, ecx);
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        using LivePatcher patcher = code.Patcher(code.Direct);
        Executor executor = code.Arena.RegisterExecutor();
        bool stop = false;
        var seen = new HashSet<long>();
        var thread = new Thread(() =>
        {
            executor.Enter();
            while (!Volatile.Read(ref stop))
            {
                seen.Add(LiveCode.Call(block));
                executor.Safepoint();
            }

            executor.Leave();
        });
        thread.Start();
        for (int i = 0; i < 300; i++)
        {
            patcher.Switch(i % 2 == 0 ? code.Inlined : code.Direct, LiveCode.Quiescent with { Timeout = s_long });
        }

        Volatile.Write(ref stop, true);
        thread.Join();
        Assert.Subset(new HashSet<long> { 11, 22 }, seen);
        executor.Dispose();
    }

    [Fact]
    public void Live_switches_wait_for_nobody()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1));
        using LivePatcher patcher = code.Patcher(code.Direct);
        Executor executor = code.Arena.RegisterExecutor();
        using var leave = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            leave.Wait();
            executor.Leave();
        });
        thread.Start();
        SpinWait.SpinUntil(() => executor.IsInside);
        Assert.Equal(2, patcher.Switch(code.Outlined).Written);
        Assert.Equal(6, LiveCode.Call(block));
        leave.Set();
        thread.Join();
        executor.Dispose();
    }
}
