using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Changes the sites of an arena while other threads run them: to a backend, to targets of their own, and back. Decides as the offline
/// planner does, then puts at every site one
/// instruction that fills it, or a jump to an island; nothing is written before everything is decided. <see cref="Switch"/>,
/// <see cref="Link"/>, <see cref="Unlink"/>,
/// <see cref="Bind"/> and <see cref="Revert"/> are short for <see cref="Apply(Action{LiveChanges}, SwitchOptions?)"/> with one setting.
/// </summary>
/// <remarks>
/// Has the slots of one layout in one arena; disposed of, it leaves sites and slots as they are. Its methods may be called from any thread
/// that is not inside
/// generated code; one batch runs at a time in an arena. Those that begin with Try give the reason in the result, the others throw a
/// <see cref="PatchException"/> with the result's first diagnostic.
/// </remarks>
public sealed partial class LivePatcher : IDisposable
{
    private static readonly SwitchOptions s_live = new();
    private static readonly SwitchOptions s_newBlocks = new() { Mode = SwitchMode.NotEntered, WaitForOther = true };

    private readonly SlotTable _slots;
    private readonly LiveBodyBuilder _builder;
    private readonly ConditionalWeakTable<Backend, BackendBinding> _bindings = [];
    private readonly LiveApplier _applier;

    /// <summary>Makes a patcher for code without operations: of keys, branches and the like.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="loggerFactory">Where it logs; nowhere where there is none.</param>
    /// <exception cref="PatchException">As for the other form.</exception>
    public LivePatcher(CodeArena arena, ILoggerFactory? loggerFactory = null)
        : this(arena, OpsLayout.Empty, loggerFactory)
    {
    }

    /// <summary>Makes a patcher.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="layout">The layout whose sites it switches.</param>
    /// <param name="loggerFactory">Where it logs; nowhere where there is none.</param>
    /// <exception cref="PatchException">
    /// Another patcher has these slots (PV8020); the arena is disposed (PV8004) or full (PV8001).
    /// </exception>
    public LivePatcher(CodeArena arena, OpsLayout layout, ILoggerFactory? loggerFactory = null)
    {
        ArgumentNullException.ThrowIfNull(arena);
        ArgumentNullException.ThrowIfNull(layout);
        Arena = arena;
        Layout = layout;
        ILogger logger = loggerFactory?.CreateLogger<LivePatcher>() ?? (ILogger)NullLogger.Instance;
        _slots = arena.SlotsOf(layout);
        _builder = new LiveBodyBuilder(arena, _slots);
        _applier = new LiveApplier(arena, _slots, _builder, logger);
        using (arena.PatchLock.Enter(wait: true))
        {
            if (_slots.Patcher is not null)
            {
                throw new PatchException(
                    PatchDiagnostic.Error(DiagnosticCodes.PatcherBusy, $"another patcher has the slots of {layout.Name} in this arena") with
                    {
                        Help = "Use that one, or dispose of it first.",
                    });
            }

            _slots.Patcher = this;
        }

        if (arena.Barrier == BarrierKind.Weak)
        {
            LiveEvents.WeakBarrier(logger);
        }
    }

    /// <summary>The arena.</summary>
    public CodeArena Arena { get; }

    /// <summary>The layout.</summary>
    public OpsLayout Layout { get; }

    /// <summary>
    /// The backend all slots are switched to, by this patcher or one before it; <see langword="null"/> before the first switch and where
    /// slots differ.
    /// </summary>
    public Backend? Current
    {
        get
        {
            BackendBinding?[] bound = _slots.Bound;
            Backend? first = bound.Length > 0 ? bound[0]?.Backend : null;
            return bound.Length == 0 ? _slots.Whole : Array.TrueForAll(bound, b => ReferenceEquals(b?.Backend, first)) ? first : null;
        }
    }

    /// <summary>Called at each step of a batch, for tests that make it fail there.</summary>
    internal Action<PatchStep, int>? Probe
    {
        get => _applier.Probe;
        set => _applier.Probe = value;
    }

    /// <summary>Decides changes and writes none of them, or throws. See <see cref="TryPlan"/>.</summary>
    /// <param name="changes">Says what is wanted.</param>
    /// <param name="options">What is known of other threads when the plan is applied; a live switch where <see langword="null"/>.</param>
    /// <returns>What would be done.</returns>
    /// <exception cref="PatchException">The changes would be refused.</exception>
    public LivePlan Plan(Action<LiveChanges> changes, SwitchOptions? options = null) =>
        TryPlan(changes, options, out LivePlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan : throw new PatchException(diagnostics[0]);

    /// <summary>
    /// Decides changes and writes none of them: nothing that runs is changed, and no islands are placed. Functions that slots would hold,
    /// thunks and far jumps are made where the arena
    /// has none yet; nobody can reach them, and a later batch finds them.
    /// </summary>
    /// <param name="changes">Says what is wanted.</param>
    /// <param name="options">What is known of other threads when the plan is applied; a live switch where <see langword="null"/>.</param>
    /// <param name="plan">What would be done.</param>
    /// <param name="diagnostics">Why the changes would be refused; warnings where they would not.</param>
    /// <returns>Whether they can be applied to the code as it is.</returns>
    public bool TryPlan(Action<LiveChanges> changes, SwitchOptions? options, [NotNullWhen(true)] out LivePlan? plan,
        out IReadOnlyList<PatchDiagnostic> diagnostics) =>
        _applier.TryPlan(Ready(Collect(changes)), options ?? new(), this, out plan, out diagnostics);

    /// <summary>Applies a plan, or throws.</summary>
    /// <param name="plan">A plan of this patcher.</param>
    /// <param name="options">What is known of other threads; what the plan was made for where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">
    /// The code or its slots are not what they were when the plan was made, or another patcher made it (PV8033), and nothing was written;
    /// else as
    /// <see cref="Apply(Action{LiveChanges}, SwitchOptions?)"/>.
    /// </exception>
    public ApplyResult Apply(LivePlan plan, SwitchOptions? options = null) =>
        TryApply(plan, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>
    /// Applies a plan. Every site and slot is checked once more under the patch lock; where anything differs from the plan, nothing is
    /// written.
    /// </summary>
    /// <param name="plan">A plan of this patcher.</param>
    /// <param name="options">What is known of other threads; what the plan was made for where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was applied.</returns>
    public bool TryApply(LivePlan plan, SwitchOptions? options, out ApplyResult result)
    {
        ArgumentNullException.ThrowIfNull(plan);
        result = _applier.Apply(plan.Changes, options ?? plan.Options, plan);
        return result.Succeeded;
    }

    /// <summary>Applies changes, or throws. See <see cref="TryApply(Action{LiveChanges}, SwitchOptions?, out ApplyResult)"/>.</summary>
    /// <param name="changes">Says what is wanted.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted; the diagnostic is the result's first.</exception>
    public ApplyResult Apply(Action<LiveChanges> changes, SwitchOptions? options = null) =>
        TryApply(changes, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>
    /// Applies changes as one batch, all or nothing: nothing is written unless everything is in order, and what fails on the way is taken
    /// back.
    /// </summary>
    /// <param name="changes">Says what is wanted.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether every site and slot in the changes' scopes now does what was asked for.</returns>
    public bool TryApply(Action<LiveChanges> changes, SwitchOptions? options, out ApplyResult result) =>
        TryRun(Collect(changes), options, out result);

    /// <summary>
    /// Switches sites to a backend, and slots where all or one is in the scope; see <see cref="LiveChanges.Use"/>, or throws.
    /// </summary>
    /// <param name="backend">The backend, made for this layout.</param>
    /// <param name="scope">The sites and slots; all where <see langword="null"/>.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Switch(Backend backend, SiteScope? scope = null, SwitchOptions? options = null) =>
        TrySwitch(backend, scope, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>Switches sites to a backend, and slots where all or one is in the scope; see <see cref="LiveChanges.Use"/>.</summary>
    /// <param name="backend">The backend, made for this layout.</param>
    /// <param name="scope">The sites and slots; all where <see langword="null"/>.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TrySwitch(Backend backend, SiteScope? scope, SwitchOptions? options, out ApplyResult result) =>
        TryRun(new LiveChanges().Use(backend, scope), options, out result);

    /// <summary>Gives each of some sites a target of its own; see <see cref="LiveChanges.Link"/>, or throws.</summary>
    /// <remarks>
    /// A linked site stays linked when slots, blocks or all sites are switched (<see cref="SiteChange.KeptLink"/>), until it is unlinked,
    /// reverted or named in a switch of
    /// some sites, or <see cref="SwitchOptions.OverridesLinks"/> is set. Slots are not touched. Executors forwarded at a guard run the
    /// slot's function. Targets out of reach are
    /// led to through a jump of the arena, kept as long as that; a target that destroys more than the site allows through a thunk. A site
    /// that can only be
    /// changed at quiescence is refused live, for its slot does something else. PV8031 says why a site can't lead to a target, PV8029 that
    /// the target is no code. No block can be
    /// retired while sites are linked to it.
    /// </remarks>
    /// <param name="links">
    /// Sites and targets; a site without a target is unlinked. Where a site is named twice, the later one counts.
    /// </param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Link(IReadOnlyList<SiteLink> links, SwitchOptions? options = null) =>
        TryLink(links, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>Gives each of some sites a target of its own; see <see cref="LiveChanges.Link"/>.</summary>
    /// <param name="links">
    /// Sites and targets; a site without a target is unlinked. Where a site is named twice, the later one counts.
    /// </param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TryLink(IReadOnlyList<SiteLink> links, SwitchOptions? options, out ApplyResult result) =>
        TryRun(new LiveChanges().Link(links), options, out result);

    /// <summary>Lets sites do again what their slots are switched to; see <see cref="LiveChanges.Unlink"/>, or throws.</summary>
    /// <param name="scope">The sites; <see cref="SiteScope.LinkedInto"/> for those that lead into blocks about to be retired.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Unlink(SiteScope scope, SwitchOptions? options = null) =>
        TryUnlink(scope, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>Lets sites do again what their slots are switched to; see <see cref="LiveChanges.Unlink"/>.</summary>
    /// <param name="scope">The sites; <see cref="SiteScope.LinkedInto"/> for those that lead into blocks about to be retired.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TryUnlink(SiteScope scope, SwitchOptions? options, out ApplyResult result) =>
        TryRun(new LiveChanges().Unlink(scope), options, out result);

    /// <summary>Gives sites the bytes they were emitted with; see <see cref="LiveChanges.Revert"/>, or throws.</summary>
    /// <param name="scope">The sites; all where <see langword="null"/>.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Revert(SiteScope? scope = null, SwitchOptions? options = null) =>
        TryRevert(scope, options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>Gives sites the bytes they were emitted with; see <see cref="LiveChanges.Revert"/>.</summary>
    /// <param name="scope">The sites; all where <see langword="null"/>.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TryRevert(SiteScope? scope, SwitchOptions? options, out ApplyResult result) =>
        TryRun(new LiveChanges().Revert(scope), options, out result);

    /// <summary>
    /// Gives new blocks, which no thread has entered yet, the bodies of what their slots are switched to, or throws; see
    /// <see cref="LiveChanges.Bind"/>. Waits for another thread's batch, and may
    /// be called from inside generated code. Before the first switch it does nothing.
    /// </summary>
    /// <param name="blocks">The blocks: many at once cost one barrier.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Bind(params IReadOnlyList<CodeBlock> blocks) =>
        TryBind(blocks, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>Gives new blocks the bodies of what their slots are switched to; see <see cref="Bind"/>.</summary>
    /// <param name="blocks">The blocks: many at once cost one barrier.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TryBind(IReadOnlyList<CodeBlock> blocks, out ApplyResult result) =>
        TryRun(new LiveChanges().Bind(blocks), s_newBlocks, out result);

    /// <summary>Gives the slots up to another patcher. Sites and slots stay as they are; the arena stays open.</summary>
    public void Dispose()
    {
        if (_applier.IsDisposed || Arena.Memory.IsDisposed)
        {
            return;
        }

        using (Arena.PatchLock.Enter(wait: true))
        {
            _applier.IsDisposed = true;
            _slots.Patcher = null;
        }
    }

    private static PatchException Failed(ApplyResult result) => new(result.Diagnostics[0]);

    private static LiveChanges Collect(Action<LiveChanges> changes)
    {
        ArgumentNullException.ThrowIfNull(changes);
        var collected = new LiveChanges();
        changes(collected);
        return collected;
    }

    private bool TryRun(LiveChanges changes, SwitchOptions? options, out ApplyResult result)
    {
        result = _applier.Apply(Ready(changes), options ?? s_live);
        return result.Succeeded;
    }

    /// <summary>Brings the changes' backends into the arena.</summary>
    private LiveChanges Ready(LiveChanges changes)
    {
        foreach (LiveChange change in changes.List)
        {
            if (change.Backend is Backend backend)
            {
                change.Binding = _bindings.TryGetValue(backend, out BackendBinding? binding)
                    ? binding
                    : _bindings.GetValue(backend, b => new BackendBinding(Arena, _slots, b, _builder));
            }
        }

        return changes;
    }
}
