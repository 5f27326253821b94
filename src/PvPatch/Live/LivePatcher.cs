using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// Switches the sites of an arena from backend to backend while other threads run them. Decides as the offline planner does, then puts at every site one
/// instruction that fills it, or a jump to an island; nothing is written before everything is decided.
/// </summary>
/// <remarks>
/// Has the slots of one layout in one arena; disposed of, it leaves sites and slots as they are. Its methods may be called from any thread that is not inside
/// generated code; one batch runs at a time in an arena.
/// </remarks>
public sealed partial class LivePatcher : IDisposable
{
    private readonly SlotTable _slots;
    private readonly TemplateStore _templates = new();
    private readonly ConditionalWeakTable<Backend, BackendBinding> _bindings = [];
    private readonly LinkBodies _linkBodies;
    private readonly BatchRunner _runner;

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
        ILogger logger = loggerFactory?.CreateLogger<LivePatcher>() ?? (ILogger)NullLogger.Instance;
        _slots = arena.SlotsOf(layout);
        _linkBodies = new LinkBodies(arena, _slots, new LiveBodyBuilder(arena, layout, _templates));
        _runner = new BatchRunner(arena, _slots, logger);
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
            LiveLog.WeakBarrier(logger);
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
            Backend? first = _runner.Bound.Length > 0 ? _runner.Bound[0]?.Backend : null;
            return Array.TrueForAll(_runner.Bound, b => ReferenceEquals(b?.Backend, first)) ? first : null;
        }
    }

    /// <summary>Called at each step of a batch, for tests that make it fail there.</summary>
    internal Action<PatchStep, int>? Probe
    {
        get => _runner.Probe;
        set => _runner.Probe = value;
    }

    /// <summary>Switches every slot and site to a backend, or throws. See <see cref="TrySwitch"/>.</summary>
    /// <param name="backend">The backend.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted; the diagnostic is the result's first.</exception>
    public SwitchResult Switch(Backend backend, SwitchOptions? options = null) => OrThrow(TrySwitch(backend, options));

    /// <summary>Switches every slot and site to a backend; linked sites keep their targets. Nothing is written unless everything is in order; what fails on the way is taken back.</summary>
    /// <param name="backend">The backend, made for this layout.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done, or why nothing was.</returns>
    public SwitchResult TrySwitch(Backend backend, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(backend);
        return _runner.Run(backend, new BatchRequest { Target = backend.Name, Options = options ?? new(), Binding = BindingOf(backend), SetsSlots = true });
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
        return OrThrow(_runner.Run(backend, new BatchRequest
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
        return OrThrow(_runner.Run(backend, new BatchRequest
        {
            Target = $"some sites of {backend.Name}",
            Options = options ?? new(),
            Binding = BindingOf(backend),
            Bound = _runner.Bound,
            OnlySites = sites,
        }));
    }

    /// <summary>Gives all sites the bytes they were emitted with, bit for bit, or throws; linked ones too, which are linked no more. Slots go on holding the functions of the backend bound last.</summary>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Revert(SwitchOptions? options = null) =>
        OrThrow(_runner.Run(null, new BatchRequest { Target = "original", Options = options ?? new(), Revert = true }));

    /// <summary>Gives some sites the bytes they were emitted with, or throws.</summary>
    /// <param name="sites">The sites.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Revert(IReadOnlyList<LiveSite> sites, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(sites);
        return OrThrow(_runner.Run(null, new BatchRequest
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
        return OrThrow(_runner.Run(null, new BatchRequest
        {
            Target = $"new blocks for {Current?.Name ?? "their slots"}",
            Options = new SwitchOptions { Mode = SwitchMode.Offline, WaitForOther = true },
            PerSlot = _runner.Bound,
            Bound = _runner.Bound,
            OnlyBlocks = blocks,
        }));
    }

    /// <summary>Gives the slots up to another patcher. Sites and slots stay as they are; the arena stays open.</summary>
    public void Dispose()
    {
        if (_runner.IsDisposed || Arena.Memory.IsDisposed)
        {
            return;
        }

        using (Arena.PatchLock.Enter(wait: true))
        {
            _runner.IsDisposed = true;
            _slots.Patcher = null;
        }
    }

    /// <summary>Sees to it that the slots' functions still destroy no more than every site allows, after sites were added.</summary>
    internal void CheckFunctions()
    {
        if (Array.TrueForAll(_runner.Bound, static b => b is null))
        {
            return;
        }

        for (int slot = 0; slot < _runner.Bound.Length; slot++)
        {
            if (_runner.Bound[slot] is BackendBinding bound && bound.IsFunctionStale(slot))
            {
                using (Arena.PatchLock.Enter(wait: true))
                {
                    BackendBinding.Function function = bound.FunctionOf(slot);
                    if (function.Error is not null)
                    {
                        throw new PatchException(function.Error);
                    }

                    if (Arena.Functions.TakeReused())
                    {
                        _ = Arena.RunBarrier();
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
}
