using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Logging;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// The one way of a set of changes into running code, all of it under the patch lock: asked whether it may be, decided, compared with the
/// plan it was promised by, written, published,
/// told of. Slots, records and links are stored here and by what this calls, and nowhere else.
/// </summary>
internal sealed partial class LiveApplier
{
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly ILogger _logger;
    private readonly LivePlanner _planner;
    private readonly PlannedSites _plan = new();
    private readonly LiveSetting.Claims _claims;

    public LiveApplier(CodeArena arena, SlotTable slots, LiveBodyBuilder builder, ILogger logger)
    {
        _arena = arena;
        _slots = slots;
        _logger = logger;
        _planner = new LivePlanner(arena, slots, builder);
        _claims = new LiveSetting.Claims(arena);
        Requests = new LinkRequests(arena, slots);
    }

    /// <summary>Whether its patcher was disposed of.</summary>
    public bool IsDisposed { get; set; }

    /// <summary>Called at each step of a batch, for tests that make it fail there.</summary>
    public Action<PatchStep, int>? Probe { get; set; }

    /// <summary>Applies changes.</summary>
    /// <param name="changes">What is wanted.</param>
    /// <param name="options">How.</param>
    /// <param name="promised">The plan that says what will be written, where one was made before.</param>
    public ApplyResult Apply(LiveChanges changes, SwitchOptions options, LivePlan? promised = null)
    {
        var report = new ApplyReport(changes.Description);
        long start = Stopwatch.GetTimestamp();
        LiveEventSource.Log.BatchStart(report.Target, options.Mode);
        if (Check(changes, options, promised) is PatchDiagnostic misuse)
        {
            report.Add(misuse);
            return Finish(Refused(report));
        }

        if (!_arena.PatchLock.TryEnter(options.WaitForOther, out PatchLock? held, out PatchDiagnostic? busy, options.Cancellation))
        {
            report.Add(busy!);
            return Finish(Refused(report));
        }

        ApplyResult? requested;
        ApplyResult result;
        using (held)
        {
            requested = ApplyRequestsBefore(changes, options, promised);
            result = ApplyHeld(changes, options, promised, report, start);
        }

        if (requested is ApplyResult made)
        {
            _ = Finish(made);
        }

        return Finish(result); // outside: a logger is the host's code
    }

    /// <summary>Decides changes and writes nothing: islands that are not there yet are given no place.</summary>
    public bool TryPlan(
        LiveChanges changes, SwitchOptions options, LivePatcher patcher, [NotNullWhen(true)] out LivePlan? plan,
        out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        plan = null;
        var report = new ApplyReport(changes.Description);
        PatchDiagnostic? misuse = Check(changes, options);
        if (misuse is null && _arena.PatchLock.TryEnter(options.WaitForOther, out PatchLock? held, out misuse, options.Cancellation))
        {
            using (held)
            {
                try
                {
                    if ((misuse = CheckHeld(changes)) is null)
                    {
                        _planner.Run(changes, options, _plan, report, places: false);
                        plan = report.HasErrors ? null : new LivePlan(patcher, changes, options, _slots, _plan, report);
                    }
                }
                finally
                {
                    _plan.Clear();
                    _claims.Release();
                }
            }
        }

        if (misuse is not null)
        {
            report.Add(misuse);
        }

        diagnostics = report.Diagnostics;
        return plan is not null;
    }

    private ApplyResult ApplyHeld(LiveChanges changes, SwitchOptions options, LivePlan? promised, ApplyReport report, long start)
    {
        bool closed = false;
        try
        {
            if ((CheckHeld(changes) ?? Quiesce(changes, options, report, ref closed)) is PatchDiagnostic refusal)
            {
                report.Add(refusal);
                return Refused(report);
            }

            _planner.Run(changes, options, _plan, report, places: true);
            if (!report.HasErrors && (promised?.Compare(new LivePlan(promised.Patcher, changes, options, _slots, _plan, report))
                ?? _arena.Ledger.Reserve(_plan)) is PatchDiagnostic broken)
            {
                report.Add(broken);
            }

            ApplyStatus status = report.HasErrors ? ApplyStatus.Refused : Write(options, report);
            SiteOutcome[] outcomes;
            if (status == ApplyStatus.Applied)
            {
                outcomes = _plan.Publish(_arena.Ledger, report, _arena.Address);
                _plan.After.CopyTo(_slots.Bound, 0);
                _plan.Settings.ForEach(static s => s.Setting.Value = s.Value);
                _slots.Whole = changes.List.FindLast(static c => c is { Kind: ChangeKind.Use, Scope.IsAll: true })?.Backend ?? _slots.Whole;
                _claims.Keep();
            }
            else
            {
                outcomes = _plan.Outcomes(_arena.Address);
            }

            report.Elapsed = Stopwatch.GetElapsedTime(start);
            report.Count = outcomes.Length;
            report.Outcomes = Array.AsReadOnly(outcomes);
            return new ApplyResult(status, report);
        }
        finally
        {
            _plan.Clear();
            _claims.Release();
            if (closed)
            {
                _arena.Executors.OpenGate();
            }
        }
    }

    private ApplyStatus Write(SwitchOptions options, ApplyReport report)
    {
        LiveStores stores = options.Mode == SwitchMode.Live
            ? new ConcurrentStores(_arena, _slots, _plan, report, options, Probe)
            : new ExclusiveStores(_arena, _slots, _plan, report, options, Probe);
        return stores.Run();
    }

    private PatchDiagnostic? Check(LiveChanges changes, SwitchOptions options, LivePlan? promised = null)
    {
        if (Disposed() is PatchDiagnostic disposed)
        {
            return disposed;
        }

        if (promised is not null && !ReferenceEquals(promised.Patcher, _slots.Patcher))
        {
            return PatchDiagnostic.Error(DiagnosticCodes.PlanStale, "the plan was made by another patcher");
        }

        foreach (LiveChange change in changes.List)
        {
            if (change.Backend is not null && !ReferenceEquals(change.Backend.Layout, _slots.Layout))
            {
                return PatchDiagnostic.Error(DiagnosticCodes.WrongLayout,
                    $"the backend \"{change.Backend.Name}\" was made for another layout") with
                {
                    Found = change.Backend.Layout.Name,
                    Expected = _slots.Layout.Name
                };
            }

            if (change.Scope.OnlySlot is not null && !_slots.IsOwn(change.Scope.OnlySlot))
            {
                return _slots.NotOwn(change.Scope.OnlySlot);
            }
        }

        // New blocks may be bound from inside: a translator called by the code it translates does so.
        if (!changes.OnlyBinds && _arena.Executors.InsideOnThisThread() is Executor inside)
        {
            return PatchDiagnostic.Error(DiagnosticCodes.InsideGeneratedCode,
                $"this thread is inside generated code (executor {inside.Name}), perhaps in the very site") with
            {
                Help =
                    "Patch from another thread, or leave the code first: note the wish in the helper and act on it in the dispatch loop.",
            };
        }

        if (options.Mode == SwitchMode.Live && _arena.Barrier == BarrierKind.None)
        {
            return PatchDiagnostic.Error(
                DiagnosticCodes.NoBarrier, "there is no barrier on this system, so nothing can be changed under running threads") with
            {
                Help = "Switch with SwitchMode.Quiescent.",
            };
        }

        return null;
    }

    private PatchDiagnostic? Disposed() =>
        IsDisposed ? PatchDiagnostic.Error(DiagnosticCodes.ArenaDisposed, "the patcher was disposed of")
        : _arena.Memory.IsDisposed ? ArenaMemory.Disposed()
        : null;

    /// <summary>What another thread could have changed before the lock was taken.</summary>
    private PatchDiagnostic? CheckHeld(LiveChanges changes)
    {
        // Asked again under the lock: who disposed of the patcher meanwhile may have given the slots to another.
        if (Disposed() is PatchDiagnostic disposed)
        {
            return disposed;
        }

        foreach (LiveChange change in changes.List)
        {
            if (change.Setting is LiveSetting setting && _claims.Add(setting) is PatchDiagnostic foreign)
            {
                return foreign;
            }

            // By index: an enumerator of an interface is an object, and most batches are small.
            for (int i = 0; i < change.Links.Count; i++)
            {
                if (change.Links[i].Site.Block is var block && !IsOurs(block))
                {
                    return NotOurs(block);
                }
            }

            for (int i = 0; i < (change.Scope.OnlySites?.Count ?? 0); i++)
            {
                if (change.Scope.OnlySites![i].Block is var block && !IsOurs(block))
                {
                    return NotOurs(block);
                }
            }

            for (int i = 0; i < (change.Scope.OnlyBlocks?.Count ?? 0); i++)
            {
                if (change.Scope.OnlyBlocks![i] is var block && !IsOurs(block))
                {
                    return NotOurs(block);
                }
            }

            // What links lead into may be anybody's block.
            for (int i = 0; i < (change.Scope.LinkTargets?.Count ?? 0); i++)
            {
                if (change.Scope.LinkTargets![i] is var block && block is not { IsRetired: false })
                {
                    return NotOurs(block);
                }
            }
        }

        return null;
    }

    // A block without sites has nothing to bind, whoever emitted it.
    private bool IsOurs([NotNullWhen(true)] CodeBlock? block) =>
        block is { IsRetired: false }
            && (ReferenceEquals(block.Slots, _slots) || (block.SiteCount == 0 && ReferenceEquals(block.Arena, _arena)));

    private static PatchDiagnostic NotOurs(CodeBlock? block) =>
        PatchDiagnostic.Error(DiagnosticCodes.BlockRetired,
            block is { IsRetired: true } ? "the block was retired" : "the block is another arena's or layout's") with
        {
            Address = block?.Address,
        };

    private PatchDiagnostic? Quiesce(LiveChanges changes, SwitchOptions options, ApplyReport report, ref bool closed)
    {
        Executor? inside = null;
        if (options.Mode == SwitchMode.Quiescent && _arena.Executors.IsTracking)
        {
            closed = _arena.Executors.TryCloseGate(RunGateBarrier, options.Timeout, options.Cancellation, out inside);
        }
        else if (options.Mode == SwitchMode.NotEntered && !changes.OnlyBinds)
        {
            inside = _arena.Executors.Inside();
        }

        return inside is null
            ? null : PatchDiagnostic.Error(DiagnosticCodes.NotQuiescent, $"executor {inside.Name} is inside generated code") with
            {
                Found = options.Mode != SwitchMode.Quiescent ? null
                : options.Cancellation.IsCancellationRequested ? "still, when the wait was cancelled"
                : $"still, after {options.Timeout.TotalMilliseconds:0} ms",
                Help = "Let executors leave or call Safepoint now and then; wait longer (SwitchOptions.Timeout); or switch live.",
            };

        // Without it an executor might enter and not see the gate, and not be seen: a barrier that fails must be replaced.
        bool RunGateBarrier()
        {
            LiveStores.RunBarrier(_arena, report);
            return true;
        }
    }

    private static ApplyResult Refused(ApplyReport report) => new(ApplyStatus.Refused, report);

    private ApplyResult Finish(ApplyResult result)
    {
        LiveEvents.Batch(result);
        LiveEventSource.Log.BatchStop(result);
        if (_logger.IsEnabled(result.Succeeded ? LogLevel.Information : LogLevel.Warning))
        {
            string text = result.ToString(); // as text: a result is no plain value to a logger
            if (result.Succeeded)
            {
                LiveEvents.Applied(_logger, text);
            }
            else
            {
                LiveEvents.Failed(_logger, text, result.Diagnostics.Count, result.Diagnostics[0]);
            }
        }

        if (_logger.IsEnabled(LogLevel.Debug))
        {
            foreach (SiteOutcome site in result.Outcomes)
            {
                // A block may be retired and reused by now.
                if (_arena.TryFindSite(site.Address, out LiveSite live))
                {
                    LiveEvents.Site(_logger, live.Name, site);
                }
            }
        }

        return result;
    }
}
