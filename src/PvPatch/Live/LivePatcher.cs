using System.Diagnostics;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using PvPatch.Ops;
using PvPatch.Planning;

namespace PvPatch.Live;

/// <summary>
/// Switches the sites of an arena from backend to backend while other threads run them. Decides as the offline planner does, then puts at every site one
/// instruction that fills it, or a jump to an island; nothing is written before everything is decided.
/// </summary>
/// <remarks>
/// Has the slots of one layout in one arena; disposed of, it leaves sites and slots as they are. Its methods may be called from any thread that is not inside
/// generated code; one batch runs at a time in an arena.
/// </remarks>
public sealed class LivePatcher : IDisposable
{
    private readonly SlotTable _slots;
    private readonly ILogger _logger;
    private readonly TemplateStore _templates = new();
    private readonly ConditionalWeakTable<Backend, BackendBinding> _bindings = [];
    private readonly BatchPlan _plan = new();
    private readonly BackendBinding?[] _bound;
    private bool _disposed;

    /// <summary>Makes a patcher.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="layout">The layout whose sites it switches.</param>
    /// <param name="loggerFactory">Where it logs; nowhere where there is none.</param>
    /// <exception cref="PatchException">Another patcher has these slots (PV8020); the arena is disposed (PV8004) or full (PV8001).</exception>
    public LivePatcher(CodeArena arena, OpsLayout layout, ILoggerFactory? loggerFactory = null)
    {
        ArgumentNullException.ThrowIfNull(arena);
        ArgumentNullException.ThrowIfNull(layout);
        Arena = arena;
        Layout = layout;
        _logger = loggerFactory?.CreateLogger<LivePatcher>() ?? (ILogger)NullLogger.Instance;
        _slots = arena.SlotsOf(layout);
        _bound = new BackendBinding?[layout.Count];
        using (arena.PatchLock.Enter(wait: true))
        {
            if (_slots.Patcher is not null)
            {
                throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.PatcherBusy, $"another patcher has the slots of {layout.Name} in this arena") with
                {
                    Help = "Use that one, or dispose of it first.",
                });
            }

            _slots.Patcher = this;
        }

        if (arena.Barrier == BarrierKind.Weak)
        {
            LiveLog.WeakBarrier(_logger);
        }
    }

    /// <summary>The arena.</summary>
    public CodeArena Arena { get; }

    /// <summary>The layout.</summary>
    public OpsLayout Layout { get; }

    /// <summary>The backend all slots were switched to last; <see langword="null"/> before the first switch and where slots differ.</summary>
    public Backend? Current
    {
        get
        {
            Backend? first = _bound.Length > 0 ? _bound[0]?.Backend : null;
            return Array.TrueForAll(_bound, b => ReferenceEquals(b?.Backend, first)) ? first : null;
        }
    }

    /// <summary>Called at each step of a batch, for tests that make it fail there.</summary>
    internal Action<PatchStep, int>? Probe { get; set; }

    /// <summary>Switches every slot and site to a backend, or throws. See <see cref="TrySwitch"/>.</summary>
    /// <param name="backend">The backend.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted; the diagnostic is the result's first.</exception>
    public SwitchResult Switch(Backend backend, SwitchOptions? options = null) => OrThrow(TrySwitch(backend, options));

    /// <summary>Switches every slot and site to a backend. Nothing is written unless everything is in order; what fails on the way is taken back.</summary>
    /// <param name="backend">The backend, made for this layout.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done, or why nothing was.</returns>
    public SwitchResult TrySwitch(Backend backend, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(backend);
        return Run(backend, new BatchRequest { Target = backend.Name, Options = options ?? new(), Binding = BindingOf(backend), SetsSlots = true });
    }

    /// <summary>Switches one slot and its sites to what a backend does there, or throws.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="backend">The backend.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Switch(OpSlot slot, Backend backend, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(slot);
        ArgumentNullException.ThrowIfNull(backend);
        _slots.CheckOwn(slot);
        return OrThrow(Run(backend, new BatchRequest
        {
            Target = $"{slot} of {backend.Name}",
            Options = options ?? new(),
            Binding = BindingOf(backend),
            SetsSlots = true,
            OnlySlot = slot.Index,
        }));
    }

    /// <summary>
    /// Switches some sites to a backend and leaves the slots as they are, or throws. A site that stays indirect under the backend goes on calling what its slot holds, and
    /// an executor forwarded at a guard runs that too.
    /// </summary>
    /// <param name="sites">The sites.</param>
    /// <param name="backend">The backend.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Switch(IReadOnlyList<LiveSite> sites, Backend backend, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(sites);
        ArgumentNullException.ThrowIfNull(backend);
        return OrThrow(Run(backend, new BatchRequest
        {
            Target = $"some sites of {backend.Name}",
            Options = options ?? new(),
            Binding = BindingOf(backend),
            Bound = _bound,
            OnlySites = sites,
        }));
    }

    /// <summary>Gives all sites the bytes they were emitted with, bit for bit, or throws. Slots go on holding the functions of the backend bound last.</summary>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Revert(SwitchOptions? options = null) =>
        OrThrow(Run(null, new BatchRequest { Target = "original", Options = options ?? new(), Revert = true }));

    /// <summary>Gives some sites the bytes they were emitted with, or throws.</summary>
    /// <param name="sites">The sites.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Revert(IReadOnlyList<LiveSite> sites, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(sites);
        return OrThrow(Run(null, new BatchRequest
        {
            Target = "original",
            Options = options ?? new(),
            Revert = true,
            OnlySites = sites,
        }));
    }

    /// <summary>
    /// Gives new blocks, which no thread has entered yet, the bodies of what their slots are switched to, or throws. Waits for another thread's batch. Before the first
    /// switch it does nothing.
    /// </summary>
    /// <param name="blocks">The blocks: many at once cost one barrier.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Bind(params IReadOnlyList<CodeBlock> blocks)
    {
        ArgumentNullException.ThrowIfNull(blocks);
        return OrThrow(Run(null, new BatchRequest
        {
            Target = $"new blocks for {Current?.Name ?? "their slots"}",
            Options = new SwitchOptions { Mode = SwitchMode.Offline, WaitForOther = true },
            PerSlot = _bound,
            Bound = _bound,
            OnlyBlocks = blocks,
        }));
    }

    /// <summary>Gives the slots up to another patcher. Sites and slots stay as they are; the arena stays open.</summary>
    public void Dispose()
    {
        if (_disposed || Arena.Memory.IsDisposed)
        {
            return;
        }

        using (Arena.PatchLock.Enter(wait: true))
        {
            _disposed = true;
            _slots.Patcher = null;
        }
    }

    /// <summary>Sees to it that the slots' functions still destroy no more than every site allows, after sites were added.</summary>
    internal void CheckFunctions()
    {
        if (Array.TrueForAll(_bound, static b => b is null))
        {
            return;
        }

        for (int slot = 0; slot < _bound.Length; slot++)
        {
            if (_bound[slot] is BackendBinding bound && bound.IsFunctionStale(slot))
            {
                using (Arena.PatchLock.Enter(wait: true))
                {
                    BackendBinding.Function function = bound.FunctionOf(slot);
                    if (function.Error is not null)
                    {
                        throw new PatchException(function.Error);
                    }

                    _slots[slot] = function.Address;
                }
            }
        }
    }

    private static SwitchResult OrThrow(SwitchResult result) =>
        result.Succeeded ? result : throw new PatchException(result.Diagnostics[0]);

    private BackendBinding BindingOf(Backend backend) =>
        _bindings.TryGetValue(backend, out BackendBinding? binding)
            ? binding
            : _bindings.GetValue(backend, b => new BackendBinding(Arena, _slots, b, _templates));

    private SwitchResult Run(Backend? backend, BatchRequest request)
    {
        var report = new BatchReport(request.Target, request.Options.Mode);
        long start = Stopwatch.GetTimestamp();
        if (Check(backend, request) is PatchDiagnostic misuse)
        {
            report.Add(misuse);
            return Finish(new SwitchResult(SwitchStatus.Refused, report, [], []));
        }

        if (!Arena.PatchLock.TryEnter(request.Options.WaitForOther, out PatchLock.Held held, out PatchDiagnostic? busy))
        {
            report.Add(busy!);
            return Finish(new SwitchResult(SwitchStatus.Refused, report, [], []));
        }

        LiveEventSource.Log.BatchStart(request.Target, request.Options.Mode.ToString());
        using (held)
        {
            bool closed = false;
            try
            {
                if ((CheckBlocks(request, _slots) ?? Quiesce(request, ref closed)) is PatchDiagnostic refusal)
                {
                    report.Add(refusal);
                    return Finish(new SwitchResult(SwitchStatus.Refused, report, [], []));
                }

                new BatchPlanner(Arena, _slots, _plan, request, report).Run();
                SwitchStatus status = report.HasErrors ? SwitchStatus.Refused : Write(request, report);
                if (status == SwitchStatus.Applied)
                {
                    Publish(request, report);
                }

                report.Elapsed = Stopwatch.GetElapsedTime(start);
                return Finish(_plan.ToResult(status, report));
            }
            finally
            {
                _plan.Clear();
                if (closed)
                {
                    Arena.Executors.OpenGate();
                }
            }
        }
    }

    private SwitchStatus Write(BatchRequest request, BatchReport report)
    {
        var writer = new BatchWriter(Arena, _slots, _plan, report, request.Options, Probe);
        return request.Options.Mode == SwitchMode.Live ? writer.RunLive() : writer.RunAlone();
    }

    private void Publish(BatchRequest request, BatchReport report)
    {
        _plan.MarkWrites(SiteChange.Written);
        _plan.Publish(request.Revert);
        report.Written = _plan.Writes.Length + _plan.LongWrites.Count;
        report.SlotsWritten = _plan.Slots.Count;
        for (int slot = 0; request.SetsSlots && slot < _bound.Length; slot++)
        {
            _bound[slot] = request.OnlySlot < 0 || slot == request.OnlySlot ? request.BindingOf(slot) : _bound[slot];
        }
    }

    private PatchDiagnostic? Check(Backend? backend, BatchRequest request)
    {
        if (_disposed || Arena.Memory.IsDisposed)
        {
            return _disposed ? PatchDiagnostic.Error(DiagnosticCodes.ArenaDisposed, "the patcher was disposed of") : ArenaMemory.Disposed();
        }

        if (backend is not null && !ReferenceEquals(backend.Layout, Layout))
        {
            return PatchDiagnostic.Error(DiagnosticCodes.WrongLayout, $"the backend \"{backend.Name}\" was made for another layout") with { Found = backend.Layout.Name, Expected = Layout.Name };
        }

        // New blocks may be bound from inside: a translator called by the code it translates does so.
        if (request.OnlyBlocks is null && Arena.Executors.InsideOnThisThread() is Executor inside)
        {
            return PatchDiagnostic.Error(DiagnosticCodes.InsideGeneratedCode, $"this thread is inside generated code (executor {inside.Name}), perhaps in the very site") with
            {
                Help = "Patch from another thread, or leave the code first: note the wish in the helper and act on it in the dispatch loop.",
            };
        }

        if (request.Options.Mode == SwitchMode.Live && Arena.Barrier == BarrierKind.None)
        {
            return PatchDiagnostic.Error(DiagnosticCodes.NoBarrier, "there is no barrier on this system, so nothing can be changed under running threads") with
            {
                Help = "Switch with SwitchMode.Quiescent.",
            };
        }

        return null;
    }

    private static PatchDiagnostic? CheckBlocks(BatchRequest request, SlotTable slots)
    {
        foreach (CodeBlock block in request.OnlyBlocks ?? request.OnlySites?.Select(static s => s.Block) ?? [])
        {
            if (block is null || !ReferenceEquals(block.Slots, slots) || block.IsRetired)
            {
                return PatchDiagnostic.Error(DiagnosticCodes.BlockRetired, block is { IsRetired: true } ? "the block was retired" : "the block is another arena's or layout's") with
                {
                    Address = block?.Address,
                };
            }
        }

        return null;
    }

    private PatchDiagnostic? Quiesce(BatchRequest request, ref bool closed)
    {
        SwitchOptions options = request.Options;
        Executor? inside = null;
        if (options.Mode == SwitchMode.Quiescent && Arena.Executors.IsTracking)
        {
            closed = Arena.Executors.TryCloseGate(Arena.RunBarrier, options.Timeout, options.Cancellation, out inside);
        }
        else if (options.Mode == SwitchMode.Offline && request.OnlyBlocks is null)
        {
            inside = Arena.Executors.Inside();
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
