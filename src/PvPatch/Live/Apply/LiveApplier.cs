using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Logging;
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
            if ((CheckHeld(changes) ?? Quiesce(changes, options, report, ref closed) ?? options.WhenQuiescent?.Invoke())
                is PatchDiagnostic refusal)
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
