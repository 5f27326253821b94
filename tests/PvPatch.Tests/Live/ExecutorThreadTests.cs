using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>Executors and the threads they belong to.</summary>
public sealed class ExecutorThreadTests
{
    [Fact]
    public void A_safepoint_of_another_thread_is_refused_and_frees_nothing()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using Executor executor = code.Arena.RegisterExecutor();
        executor.Enter();
        code.Arena.Retire(block);
        PatchDiagnostic? error = null;
        OnThread(() => error = Assert.Throws<PatchException>(executor.Safepoint).Diagnostic);
        Assert.Equal(DiagnosticCodes.ExecutorMisuse, error!.Code);
        Assert.Equal(0, code.Arena.Reclaim());
        Assert.NotEqual(0xcc, block.ToArray()[0]);
        OnThread(() => Assert.Equal(DiagnosticCodes.ExecutorMisuse, Assert.Throws<PatchException>(executor.Leave).Diagnostic.Code));
        OnThread(() => Assert.Equal(DiagnosticCodes.ExecutorMisuse, Assert.Throws<PatchException>(executor.Enter).Diagnostic.Code));
        Assert.Equal(0, code.Arena.Reclaim());
        executor.Safepoint();
        Assert.True(code.Arena.Reclaim() > 0);
        executor.Leave();
        OnThread(executor.Safepoint); // outside it means nothing, whoever says it
    }

    [Fact]
    public void An_executor_whose_thread_ended_inside_blocks_nothing()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher(code.Direct);
        Executor executor = code.Arena.RegisterExecutor("gone");
        OnThread(executor.Enter);
        Assert.False(executor.IsInside);
        code.Arena.Retire(block);
        Assert.DoesNotContain(block, code.Arena.Blocks);
        Assert.False(code.Arena.TryFindBlock(block.Address, out _));
        Assert.Equal(ApplyStatus.Applied, patcher.TrySwitch(code.Nops, LiveCode.Quiescent).Status);
    }

    [Fact]
    public void A_grace_period_ends_with_the_thread_it_waits_for()
    {
        using var code = new LiveCode();
        using Executor executor = code.Arena.RegisterExecutor();
        using var entered = new ManualResetEventSlim();
        using var end = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            entered.Set();
            end.Wait();
        });
        thread.Start();
        entered.Wait();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        code.Arena.Retire(block);
        Assert.Equal(0, code.Arena.Reclaim());
        end.Set();
        thread.Join();
        Assert.True(code.Arena.Reclaim() > 0);
    }

    [Fact]
    public void Another_thread_enters_with_an_executor_whose_thread_ended_inside()
    {
        using var code = new LiveCode();
        Executor executor = code.Arena.RegisterExecutor();
        OnThread(() =>
        {
            executor.Enter();
            executor.Enter();
        });
        executor.Enter();
        Assert.True(executor.IsInside);
        Assert.Equal(DiagnosticCodes.ArenaInUse, Assert.Throws<PatchException>(code.Arena.Dispose).Diagnostic.Code);
        executor.Leave();
        Assert.False(executor.IsInside);
        Assert.Equal(0, executor.Counter % 2);
        executor.Dispose();
    }

    [Fact]
    public void An_executor_whose_thread_ended_inside_can_be_given_up_and_the_arena_too()
    {
        var code = new LiveCode();
        Executor executor = code.Arena.RegisterExecutor();
        Executor other = code.Arena.RegisterExecutor();
        OnThread(executor.Enter);
        OnThread(other.Enter);
        executor.Dispose();
        code.Dispose();
        Assert.False(executor.IsInside);
    }

    [Fact]
    public void A_gate_whose_barrier_fails_is_closed_all_the_same()
    {
        var executors = new ExecutorList();
        Executor executor = executors.Add("late");
        bool asked = false;
        Assert.True(executors.TryCloseGate(() => !(asked = true), TimeSpan.FromSeconds(1), CancellationToken.None, out Executor? inside));
        Assert.True(asked);
        Assert.Null(inside);
        using var entered = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            entered.Set();
            executor.Leave();
        });
        thread.Start();
        Assert.False(entered.Wait(50));
        executors.OpenGate();
        thread.Join();
        Assert.True(entered.IsSet);
    }

    [Fact]
    public void Who_comes_while_the_gate_is_being_closed_waits()
    {
        var executors = new ExecutorList();
        Executor executor = executors.Add("late");
        using var entered = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            entered.Set();
            executor.Leave();
        });
        Assert.True(executors.TryCloseGate(Barrier, TimeSpan.FromSeconds(60), CancellationToken.None, out _));
        Assert.False(entered.IsSet);
        executors.OpenGate();
        thread.Join();

        bool Barrier()
        {
            Assert.True(executors.GateIsClosed);
            thread.Start();
            Assert.False(entered.Wait(50));
            return true;
        }
    }

    [Fact]
    public void Who_finds_the_gate_closed_finds_that_it_waits_for_ever()
    {
        // The thread is inside with one executor and comes to the gate with another, before the batch has looked who is inside.
        var executors = new ExecutorList();
        Executor first = executors.Add("first");
        Executor second = executors.Add("second");
        first.Enter();
        using var closing = new ManualResetEventSlim();
        using var seen = new ManualResetEventSlim();
        var closer = new Thread(() => executors.TryCloseGate(Barrier, Timeout.InfiniteTimeSpan, CancellationToken.None, out _));
        closer.Start();
        closing.Wait();
        Assert.True(executors.GateIsClosed);
        Assert.Same(first, executors.AwaitedForEver());
        Assert.Equal(DiagnosticCodes.ExecutorMisuse, Assert.Throws<PatchException>(second.Enter).Diagnostic.Code);
        seen.Set();
        first.Leave();
        closer.Join();
        Assert.True(executors.GateIsClosed);
        Assert.Null(executors.AwaitedForEver());
        executors.OpenGate();

        bool Barrier()
        {
            closing.Set();
            return seen.Wait(TimeSpan.FromSeconds(60));
        }
    }

    [Fact]
    public void A_gate_whose_barrier_throws_is_open_again()
    {
        var executors = new ExecutorList();
        Executor executor = executors.Add("waiting");
        Assert.Throws<InvalidOperationException>(() => executors.TryCloseGate(
            static () => throw new InvalidOperationException("injected"), TimeSpan.FromSeconds(1), CancellationToken.None, out _));
        Assert.False(executors.GateIsClosed);
        OnThread(executor.Enter);
    }

    [Fact]
    public void An_executor_declares_itself_inside_before_it_looks_at_the_gate()
    {
        // Who looked first could find the gate open, be passed over by the batch, and go in while it writes. The counter tells: odd before
        // the closed gate was seen, even behind it, odd again when it is open.
        var executors = new ExecutorList();
        Executor executor = executors.Add("late");
        long before = executor.Counter;
        Assert.True(executors.TryCloseGate(static () => true, TimeSpan.FromSeconds(60), CancellationToken.None, out _));
        using var entered = new ManualResetEventSlim();
        using var leave = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            entered.Set();
            leave.Wait();
            executor.Leave();
        });
        thread.Start();
        Assert.True(SpinWait.SpinUntil(() => executor.Counter == before + 2, TimeSpan.FromSeconds(60)));
        Assert.False(entered.Wait(50));
        Assert.Equal(before + 2, executor.Counter);
        executors.OpenGate();
        entered.Wait();
        Assert.Equal(before + 3, executor.Counter);
        leave.Set();
        thread.Join();
        Assert.Equal(before + 4, executor.Counter);
    }

    [Fact]
    public void The_gate_waits_for_ever_where_it_is_told_to()
    {
        var executors = new ExecutorList();
        Executor executor = executors.Add("slow");
        using var entered = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            entered.Set();
            Thread.Sleep(50);
            executor.Leave();
        });
        thread.Start();
        entered.Wait();
        Assert.True(executors.TryCloseGate(static () => true, Timeout.InfiniteTimeSpan, CancellationToken.None, out _));
        thread.Join();
        executors.OpenGate();
    }

    [Fact]
    public void Who_waits_at_the_gate_of_an_arena_that_is_disposed_of_is_told_so()
    {
        var executors = new ExecutorList();
        Executor executor = executors.Add("waiting");
        Assert.True(executors.TryCloseGate(static () => true, TimeSpan.FromSeconds(1), CancellationToken.None, out _));
        Exception? refused = null;
        var thread = new Thread(() => refused = Record.Exception(executor.Enter));
        thread.Start();
        Assert.True(executors.TryCloseForGood(static () => true, out _));
        thread.Join();
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Assert.IsType<PatchException>(refused).Diagnostic.Code);
        Assert.False(executor.IsInside);
    }

    internal static void OnThread(Action action)
    {
        Exception? failure = null;
        var thread = new Thread(() => failure = Record.Exception(action));
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }
}
