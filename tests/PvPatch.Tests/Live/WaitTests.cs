using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>Who waits for whom: a thread inside generated code never waits for a batch that waits for it without an end.</summary>
public sealed class WaitTests
{
    private static readonly SwitchOptions s_forEver = LiveCode.Quiescent with { Timeout = Timeout.InfiniteTimeSpan };

    [Fact]
    public void What_would_wait_from_inside_for_a_batch_that_waits_for_ever_is_refused()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        CodeBlock old = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor("translator");
        executor.Enter();
        ApplyResult? result = null;
        Thread switcher = Started(() => result = patcher.TrySwitch(code.Inlined, s_forEver));
        SpinWait.SpinUntil(() => code.Arena.Executors.GateIsClosed);
        foreach (Action action in (Action[])
        [
            () => code.EmitFunction(new SiteWish(1)), () => code.Arena.Retire(old), () => _ = new LivePatcher(code.Arena, OpsLayout()),
            patcher.Dispose,
        ])
        {
            PatchDiagnostic refused = Assert.Throws<PatchException>(action).Diagnostic;
            Assert.Equal(DiagnosticCodes.InsideGeneratedCode, refused.Code);
            Assert.Contains("translator", refused.Message, StringComparison.Ordinal);
        }

        Assert.False(patcher.TryBind([block], out ApplyResult bind));
        Assert.Equal(DiagnosticCodes.InsideGeneratedCode, bind.Diagnostics[0].Code);
        Assert.False(old.IsRetired);
        executor.Leave();
        switcher.Join();
        Assert.Equal(ApplyStatus.Applied, result?.Status);
        Assert.Equal(1, LiveCode.Call(code.EmitFunction(new SiteWish(1))));
    }

    [Fact]
    public void A_safepoint_lets_the_batch_go_on_and_then_the_emit()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor();
        executor.Enter();
        Thread switcher = Started(() => patcher.Switch(code.Inlined, s_forEver));
        SpinWait.SpinUntil(() => code.Arena.Executors.GateIsClosed);
        Assert.Throws<PatchException>(() => code.EmitFunction(new SiteWish(0)));
        executor.Safepoint();
        Assert.Equal(1, LiveCode.Call(code.EmitFunction(new SiteWish(0))));
        executor.Leave();
        switcher.Join();
    }

    [Fact]
    public void A_batch_with_a_time_limit_is_waited_for_from_inside()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor();
        executor.Enter();
        ApplyResult? result = null;
        Thread switcher = Started(
            () => result = patcher.TrySwitch(code.Inlined, LiveCode.Quiescent with { Timeout = TimeSpan.FromMilliseconds(300) }));
        SpinWait.SpinUntil(() => code.Arena.Executors.GateIsClosed || result is not null);
        Assert.Equal(2, LiveCode.Call(code.EmitFunction(new SiteWish(0))));
        executor.Leave();
        switcher.Join();
        Assert.Equal(DiagnosticCodes.NotQuiescent, result?.Diagnostics[0].Code);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Who_waits_already_is_told_when_the_batch_begins_to_wait_for_it(bool gate)
    {
        var executors = new ExecutorList();
        var patchLock = new PatchLock(executors);
        Executor executor = executors.Add("first");
        using var entered = new ManualResetEventSlim();
        PatchDiagnostic? refused = null;
        Thread inside;
        using (patchLock.Enter(wait: false))
        {
            inside = Started(() =>
            {
                executor.Enter();
                entered.Set();
                _ = patchLock.TryEnter(wait: true, out _, out refused);
                executor.Leave();
            });
            entered.Wait();
            Thread.Sleep(50); // most often it waits by now
            bool over = gate
                ? executors.TryCloseGate(static () => true, Timeout.InfiniteTimeSpan, CancellationToken.None, out _)
                : executors.Wait(executors.Begin(), Timeout.InfiniteTimeSpan, CancellationToken.None);
            Assert.True(over);
        }

        inside.Join();
        Assert.Equal(DiagnosticCodes.InsideGeneratedCode, refused?.Code);
    }

    [Fact]
    public void Who_entered_after_a_grace_period_began_waits_for_its_batch()
    {
        var executors = new ExecutorList();
        var patchLock = new PatchLock(executors);
        Executor first = executors.Add("first");
        Executor second = executors.Add("second");
        using var entered = new ManualResetEventSlim();
        using var leave = new ManualResetEventSlim();
        Thread inside = Started(() =>
        {
            first.Enter();
            entered.Set();
            leave.Wait();
            first.Leave();
        });
        entered.Wait();
        PatchDiagnostic? refused = null;
        PatchLock held = patchLock.Enter(wait: false);
        GracePeriod period = executors.Begin();
        Thread late = Started(() =>
        {
            second.Enter();
            if (patchLock.TryEnter(wait: true, out PatchLock? mine, out refused))
            {
                mine.Dispose();
            }

            second.Leave();
        });
        Thread letGo = Started(() =>
        {
            Thread.Sleep(100);
            leave.Set();
        });
        Assert.True(executors.Wait(period, Timeout.InfiniteTimeSpan, CancellationToken.None));
        held.Dispose();
        inside.Join();
        late.Join();
        letGo.Join();
        Assert.Null(refused);
    }

    [Fact]
    public void A_thread_that_is_awaited_for_ever_does_not_wait_at_the_gate_with_a_second_executor()
    {
        var executors = new ExecutorList();
        Executor first = executors.Add("first");
        Executor second = executors.Add("second");
        first.Enter();
        Thread closer = Started(() => executors.TryCloseGate(static () => true, Timeout.InfiniteTimeSpan, CancellationToken.None, out _));
        SpinWait.SpinUntil(() => executors.AwaitedForEver() == first);
        Assert.Equal(DiagnosticCodes.ExecutorMisuse, Assert.Throws<PatchException>(second.Enter).Diagnostic.Code);
        Assert.False(second.IsInside);
        first.Leave();
        closer.Join();
        executors.OpenGate();
        second.Enter();
        second.Leave();
    }

    private static Mechanisms.OpsLayout OpsLayout() => Mechanisms.OpsLayout.Create(static b => b.Table("u", static t => t.Slot("other")));

    private static Thread Started(Action action)
    {
        var thread = new Thread(() => action()) { IsBackground = true };
        thread.Start();
        return thread;
    }
}
