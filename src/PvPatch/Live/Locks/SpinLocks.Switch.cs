using System.Diagnostics;
using PvPatch.Locks;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

// From one mode or kind to another.
public sealed unsafe partial class SpinLocks
{
    /// <summary>Switches the mode of all locks, or throws. See <see cref="TrySwitch"/>.</summary>
    /// <param name="mode">The mode.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The switch was refused, taken back or faulted.</exception>
    public ApplyResult Switch(SpinLockMode mode, SwitchOptions? options = null) => Switch(Kind, mode, options);

    /// <summary>Switches kind and mode of all locks, or throws. See <see cref="TrySwitch"/>.</summary>
    /// <param name="kind">The kind.</param>
    /// <param name="mode">The mode.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The switch was refused, taken back or faulted.</exception>
    public ApplyResult Switch(SpinLockKind kind, SpinLockMode mode, SwitchOptions? options = null) =>
        TrySwitch(kind, mode, options, out ApplyResult result) ? result : throw new PatchException(result.Diagnostics[0]);

    /// <summary>
    /// Switches kind and mode of all locks. The mode may be switched live; to be paravirtual while threads may be inside, the arena must
    /// know its executors, for all must have been outside before the first waiter sleeps (else PV8072). The kind is switched at quiescence
    /// only, with every lock made known (<see cref="Add"/>) and free (else PV8073): locks of kinds have nothing in common but that a word
    /// of zero is free.
    /// </summary>
    /// <param name="kind">The kind.</param>
    /// <param name="mode">The mode.</param>
    /// <param name="options">
    /// What is known of other threads, a live switch where <see langword="null"/>. The time limit holds for each of the three steps.
    /// </param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether every lock and unlock is now of the kind and mode.</returns>
    public bool TrySwitch(SpinLockKind kind, SpinLockMode mode, SwitchOptions? options, out ApplyResult result)
    {
        _ = LockCode.Of(kind);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)mode, (uint)SpinLockMode.Paravirtual, nameof(mode));
        options ??= new();
        lock (_sync)
        {
            result = CheckSwitch(kind, mode, options) is PatchDiagnostic refusal
                ? new ApplyResult(ApplyStatus.Refused, new ApplyReport($"{kind} {mode}").Add(refusal))
                : Run(kind, mode, options);
            return result.Succeeded;
        }
    }

    private PatchDiagnostic? CheckSwitch(SpinLockKind kind, SpinLockMode mode, SwitchOptions options) =>
        kind != Kind && options.Mode != SwitchMode.Quiescent
            ? PatchDiagnostic.Error(
                DiagnosticCodes.LocksInUse, "locks can become another kind only while nobody holds them or waits for them") with
            {
                Help = "Switch with SwitchMode.Quiescent.",
            }
            : mode == SpinLockMode.Paravirtual && options.Mode == SwitchMode.Live && !Arena.Executors.IsTracking
            ? PatchDiagnostic.Error(
                DiagnosticCodes.LockWaiters, "nothing tells when the last unlock is done that would not kick a waiter") with
            {
                Help = "Register an executor for each thread, or switch with SwitchMode.Quiescent.",
            }
            : Arena.Executors.InsideOnThisThread() is Executor inside
            ? PatchDiagnostic.Error(
                DiagnosticCodes.InsideGeneratedCode, $"this thread is inside generated code (executor {inside.Name}), perhaps with a lock")
            : null;

    private ApplyResult Run(SpinLockKind kind, SpinLockMode mode, SwitchOptions options)
    {
        // While nobody may sleep, any site may do what either mode says: only an unlock that does not kick and a waiter that sleeps
        // don't go together.
        bool before = MayWait;
        bool mayWaitAfter = before;
        try
        {
            if (WakeAll(options) is PatchDiagnostic asleep)
            {
                return new ApplyResult(ApplyStatus.Refused, new ApplyReport($"{kind} {mode}").Add(asleep));
            }

            Backend old = _functions[Kind, Mode];
            SwitchOptions how = kind == Kind ? options : options with { WhenQuiescent = () => MakeFree(Kind) };
            if (!_patcher.TrySwitch(_functions[kind, mode], null, how, out ApplyResult result))
            {
                mayWaitAfter = before && result.Status != ApplyStatus.Faulted;
                return result;
            }

            if (mode == SpinLockMode.Paravirtual && options.Mode == SwitchMode.Live && AwaitUnlocks(options) is PatchDiagnostic late)
            {
                return TakeBack(old, before, late, out mayWaitAfter);
            }

            (Kind, Mode) = (kind, mode);
            mayWaitAfter = mode == SpinLockMode.Paravirtual;
            return result;
        }
        finally
        {
            MayWait = mayWaitAfter;
        }
    }

    /// <summary>
    /// Goes back, where executors did not leave in time: some may be in unlocks that kick nobody. Where even that fails nobody sleeps any
    /// more, which is right with all sites.
    /// </summary>
    private ApplyResult TakeBack(Backend old, bool before, PatchDiagnostic late, out bool mayWait)
    {
        bool back = _patcher.TrySwitch(old, null, new() { WaitForOther = true }, out ApplyResult failed);
        mayWait = back && before;
        return back ? new ApplyResult(ApplyStatus.RolledBack, new ApplyReport(failed.Target).Add(late)) : failed;
    }

    /// <summary>Lets nobody go to sleep any more, and wakes those who do until none is left.</summary>
    private PatchDiagnostic? WakeAll(SwitchOptions options)
    {
        MayWait = false; // a locked store: whoever is not counted below finds it
        long start = Stopwatch.GetTimestamp();
        var spin = new SpinWait();
        while (WaiterCount != 0)
        {
            _host.WakeAll();
            if (options.Cancellation.IsCancellationRequested || (options.Timeout != Timeout.InfiniteTimeSpan
                && Stopwatch.GetElapsedTime(start) >= options.Timeout))
            {
                return PatchDiagnostic.Error(
                    DiagnosticCodes.LockWaiters, $"threads that wait for locks did not come back from the host \"{_host.Name}\"") with
                {
                    Found = FormattableString.Invariant($"{WaiterCount} still waiting"),
                    Help = "The host's wakeAll must let every wait come back; or wait longer (SwitchOptions.Timeout).",
                };
            }

            spin.SpinOnce();
        }

        return null;
    }

    /// <summary>Waits until whoever was inside when the sites had been switched has been outside: no old unlock is under way
    /// then.</summary>
    private PatchDiagnostic? AwaitUnlocks(SwitchOptions options)
    {
        if (!Arena.PatchLock.TryEnter(wait: true, out PatchLock? held, out PatchDiagnostic? busy, options.Cancellation))
        {
            return busy;
        }

        using (held)
        {
            return Arena.Executors.Wait(Arena.Executors.Begin(), options.Timeout, options.Cancellation) ? null
                : PatchDiagnostic.Error(
                    DiagnosticCodes.GraceTimeout, "executors may still be in unlocks that would kick nobody; the mode is what it was") with
                {
                    Help = "Let executors leave or call Safepoint now and then; or wait longer (SwitchOptions.Timeout).",
                };
        }
    }

    /// <summary>At quiescence: makes every lock one that is free in all kinds, or says which is not free.</summary>
    private PatchDiagnostic? MakeFree(SpinLockKind kind)
    {
        LockCode code = LockCode.Of(kind);
        foreach (ulong word in _words)
        {
            if (!code.IsFree(*(ulong*)word))
            {
                return PatchDiagnostic.Error(DiagnosticCodes.LocksInUse, $"a {kind} lock is held while nobody is in generated code") with
                {
                    Address = word,
                    Found = FormattableString.Invariant($"0x{*(ulong*)word:x16}"),
                    Help = "A lock that is held across Executor.Leave keeps its kind: release it first.",
                };
            }
        }

        foreach (ulong word in _words)
        {
            *(ulong*)word = 0;
        }

        return null;
    }
}
