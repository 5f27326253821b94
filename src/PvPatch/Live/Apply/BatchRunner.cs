using System.Diagnostics;
using Microsoft.Extensions.Logging;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>The course of a batch: asked whether it may be, decided, written, published, told of.</summary>
internal sealed class BatchRunner
{
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly ILogger _logger;
    private readonly BatchPlan _plan = new();

    public BatchRunner(CodeArena arena, SlotTable slots, ILogger logger)
    {
        _arena = arena;
        _slots = slots;
        _logger = logger;
        Bound = new BackendBinding?[slots.Layout.Count];
    }

    /// <summary>What each slot holds a function of.</summary>
    public BackendBinding?[] Bound { get; }

    /// <summary>Whether its patcher was disposed of.</summary>
    public bool IsDisposed { get; set; }

    /// <summary>Called at each step of a batch, for tests that make it fail there.</summary>
    public Action<PatchStep, int>? Probe { get; set; }

    /// <summary>Runs a batch.</summary>
    /// <param name="backend">The backend asked for, where there is one.</param>
    /// <param name="request">What is asked for.</param>
    public SwitchResult Run(Backend? backend, BatchRequest request)
    {
        var report = new BatchReport(request.Target, request.Options.Mode);
        long start = Stopwatch.GetTimestamp();
        if (Check(backend, request) is PatchDiagnostic misuse)
        {
            report.Add(misuse);
            return Finish(new SwitchResult(SwitchStatus.Refused, report, [], []));
        }

        if (!_arena.PatchLock.TryEnter(request.Options.WaitForOther, out PatchLock.Held held, out PatchDiagnostic? busy))
        {
            report.Add(busy!);
            return Finish(new SwitchResult(SwitchStatus.Refused, report, [], []));
        }

        LiveEventSource.Log.BatchStart(request.Target, request.Options.Mode.ToString());
        SwitchResult result;
        using (held)
        {
            result = RunHeld(request, report, start);
        }

        return Finish(result); // outside: a logger is the host's code
    }

    private SwitchResult RunHeld(BatchRequest request, BatchReport report, long start)
    {
        bool closed = false;
        try
        {
            if ((CheckHeld(request) ?? Quiesce(request, ref closed)) is PatchDiagnostic refusal)
            {
                report.Add(refusal);
                return new SwitchResult(SwitchStatus.Refused, report, [], []);
            }

            new BatchPlanner(new BatchContext(_arena, _slots, _plan, request, report)).Run();
            SwitchStatus status = report.HasErrors ? SwitchStatus.Refused : Write(request, report);
            if (status == SwitchStatus.Applied)
            {
                Publish(request, report);
            }

            report.Elapsed = Stopwatch.GetElapsedTime(start);
            return _plan.ToResult(status, report);
        }
        finally
        {
            _plan.Clear();
            if (closed)
            {
                _arena.Executors.OpenGate();
            }
        }
    }

    private SwitchStatus Write(BatchRequest request, BatchReport report)
    {
        BatchWriter writer = request.Options.Mode == SwitchMode.Live
            ? new LiveWriter(_arena, _slots, _plan, report, request.Options, Probe)
            : new ExclusiveWriter(_arena, _slots, _plan, report, request.Options, Probe);
        return writer.Run();
    }

    private void Publish(BatchRequest request, BatchReport report)
    {
        _plan.MarkWrites(SiteChange.Written);
        _plan.Publish(_arena.Ledger, links: request.Links is not null);
        report.Written = _plan.Writes.Length + _plan.LongWrites.Count;
        report.SlotsWritten = _plan.Slots.Count;
        for (int slot = 0; request.SetsSlots && slot < Bound.Length; slot++)
        {
            Bound[slot] = request.OnlySlot < 0 || slot == request.OnlySlot ? request.BindingOf(slot) : Bound[slot];
        }
    }

    private PatchDiagnostic? Check(Backend? backend, BatchRequest request)
    {
        if (IsDisposed || _arena.Memory.IsDisposed)
        {
            return IsDisposed ? PatchDiagnostic.Error(DiagnosticCodes.ArenaDisposed, "the patcher was disposed of") : ArenaMemory.Disposed();
        }

        if (backend is not null && !ReferenceEquals(backend.Layout, _slots.Layout))
        {
            return PatchDiagnostic.Error(DiagnosticCodes.WrongLayout, $"the backend \"{backend.Name}\" was made for another layout") with { Found = backend.Layout.Name, Expected = _slots.Layout.Name };
        }

        // New blocks may be bound from inside: a translator called by the code it translates does so.
        if (request.OnlyBlocks is null && _arena.Executors.InsideOnThisThread() is Executor inside)
        {
            return PatchDiagnostic.Error(DiagnosticCodes.InsideGeneratedCode, $"this thread is inside generated code (executor {inside.Name}), perhaps in the very site") with
            {
                Help = "Patch from another thread, or leave the code first: note the wish in the helper and act on it in the dispatch loop.",
            };
        }

        if (request.Options.Mode == SwitchMode.Live && _arena.Barrier == BarrierKind.None)
        {
            return PatchDiagnostic.Error(DiagnosticCodes.NoBarrier, "there is no barrier on this system, so nothing can be changed under running threads") with
            {
                Help = "Switch with SwitchMode.Quiescent.",
            };
        }

        return null;
    }

    /// <summary>What another thread could have changed before the lock was taken.</summary>
    private PatchDiagnostic? CheckHeld(BatchRequest request)
    {
        if (_arena.Memory.IsDisposed)
        {
            return ArenaMemory.Disposed();
        }

        foreach (CodeBlock? block in request.NamedBlocks)
        {
            // A block without sites has nothing to bind, whoever emitted it.
            bool ours = block is not null && (ReferenceEquals(block.Slots, _slots) || (block.SiteCount == 0 && ReferenceEquals(block.Arena, _arena)));
            if (!ours || block!.IsRetired)
            {
                return NotOurs(block);
            }
        }

        // What links lead into may be anybody's block of the arena.
        foreach (CodeBlock? block in request.UnlinkedFrom ?? [])
        {
            if (block is null || !ReferenceEquals(block.Arena, _arena) || block.IsRetired)
            {
                return NotOurs(block);
            }
        }

        return null;
    }

    private static PatchDiagnostic NotOurs(CodeBlock? block) =>
        PatchDiagnostic.Error(DiagnosticCodes.BlockRetired, block is { IsRetired: true } ? "the block was retired" : "the block is another arena's or layout's") with
        {
            Address = block?.Address,
        };

    private PatchDiagnostic? Quiesce(BatchRequest request, ref bool closed)
    {
        SwitchOptions options = request.Options;
        Executor? inside = null;
        if (options.Mode == SwitchMode.Quiescent && _arena.Executors.IsTracking)
        {
            closed = _arena.Executors.TryCloseGate(_arena.RunBarrier, options.Timeout, options.Cancellation, out inside);
        }
        else if (options.Mode == SwitchMode.Offline && request.OnlyBlocks is null)
        {
            inside = _arena.Executors.Inside();
        }

        return inside is null ? null : PatchDiagnostic.Error(DiagnosticCodes.NotQuiescent, $"executor {inside.Name} is inside generated code") with
        {
            Found = options.Mode == SwitchMode.Quiescent ? $"still, after {options.Timeout.TotalMilliseconds:0} ms" : null,
            Help = "Let executors leave or call Safepoint now and then; wait longer (SwitchOptions.Timeout); or switch live.",
        };
    }

    private SwitchResult Finish(SwitchResult result)
    {
        LiveMetrics.Batch(result);
        LiveEventSource.Log.BatchStop(result.Status.ToString(), result.Written, result.Barriers, (long)result.Elapsed.TotalMicroseconds);
        if (result.Succeeded)
        {
            LiveLog.Applied(_logger, result);
        }
        else
        {
            LiveLog.Failed(_logger, result, result.Diagnostics.Count, result.Diagnostics[0]);
        }

        if (_logger.IsEnabled(LogLevel.Debug))
        {
            for (int i = 0; i < result.Count; i++)
            {
                LiveLog.Site(_logger, result[i]);
            }
        }

        return result;
    }
}
