using System.Runtime.CompilerServices;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>What has been decided in the course of one plan: once for all sites that share slot, budget, clobbers and traits.</summary>
internal sealed class PreparedDecisions
{
    private readonly Backend _backend;
    private readonly OpsDecider _decider;
    private readonly TemplateCache _templates;
    private readonly ThunkPlanner? _thunks;
    private readonly PlanBuilder _plan;
    private readonly DecisionCache _cache = new();
    private readonly List<PreparedDecision> _prepared = [];
    private readonly Dictionary<int, int> _missingUses = [];
    private ReadyDecision[] _ready = new ReadyDecision[64];

    public PreparedDecisions(Backend backend, OpsDecider decider, TemplateCache templates, ThunkPlanner? thunks, PlanBuilder plan)
    {
        _backend = backend;
        _decider = decider;
        _templates = templates;
        _thunks = thunks;
        _plan = plan;
    }

    /// <summary>The slots without an operation that sites use, each with the index of the first such site.</summary>
    public IReadOnlyDictionary<int, int> MissingUses => _missingUses;

    /// <summary>The decision for a site, where it is plain and was made before; else a decision that is not plain.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ref readonly ReadyDecision Ready(in PatchSite site)
    {
        // Where the key is not there, the number is 0; place 0 is kept for a decision that is not plain.
        _cache.TryGet(site.DecisionKey, out int number);
        return ref _ready[number];
    }

    /// <summary>The decision for a site, made now where it was not made before.</summary>
    /// <param name="index">The site's place in the table.</param>
    /// <param name="site">The site.</param>
    public PreparedDecision Get(int index, in PatchSite site)
    {
        if (_cache.TryGet(site.DecisionKey, out int number))
        {
            return _prepared[number - 1];
        }

        PreparedDecision made = Prepare(site);
        if (made.Failed is null && made.Action is PatchAction.Trap or PatchAction.CallBug)
        {
            _missingUses.TryAdd(site.Slot, index);
        }

        _prepared.Add(made);
        number = _prepared.Count;
        if (number == _ready.Length)
        {
            Array.Resize(ref _ready, number * 2);
        }

        _ready[number] = made.Ready;
        _cache.Add(site.DecisionKey, number);
        return made;
    }

    private PreparedDecision Prepare(in PatchSite site)
    {
        OpsLayout layout = _backend.Layout;
        if (site.Slot >= layout.Count)
        {
            return new PreparedDecision(PatchDiagnostic.Error(DiagnosticCodes.SiteUnknownSlot, "the site names a slot the layout does not have") with
            {
                Found = $"slot {site.Slot}",
                Expected = $"0 to {layout.Count - 1} ({layout.Name})",
                Help = "Choose the layout of the kernel the table is from.",
            });
        }

        OpSlot slot = layout[site.Slot];
        if (slot.Kind == SlotKind.Data)
        {
            return new PreparedDecision(PatchDiagnostic.Error(DiagnosticCodes.SiteDataSlot, $"the site names {slot}, which no code calls"));
        }

        Decision decision;
        try
        {
            decision = _decider.Decide(slot, _backend[site.Slot], site);
        }
        catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.BodyInvalid)
        {
            return new PreparedDecision(e.Diagnostic with { Source = slot.Name });
        }

        if (decision.Stop is not null)
        {
            return new PreparedDecision(decision.Stop);
        }

        var outcome = new PlanOutcome
        {
            Label = slot.Name,
            Type = slot.Index,
            Clobbers = site.Clobbers,
            Action = decision.Action,
            Reason = decision.Reason,
            Target = decision.Target,
            TargetName = decision.TargetName,
            Detail = decision.Detail,
        };
        CodeTemplate? template = decision.Template;
        if (decision.Thunk is ThunkRequest request)
        {
            if (_thunks!.Place(request, decision.TargetName) is VirtualAddress thunk)
            {
                template = _templates.Call(thunk, site.Budget);
            }
            else
            {
                outcome = outcome with { Action = PatchAction.LeaveAlone, Reason = PatchReason.ClobbersTooMuch, Target = null, TargetName = null, Detail = "no room for a thunk in reach" };
            }
        }

        return new PreparedDecision(outcome, template, site.Budget, _plan);
    }
}

/// <summary>One decision with its template and its place in the plan, and the outcomes that sites come to where it can't be followed.</summary>
internal sealed class PreparedDecision
{
    private readonly PlanOutcome? _outcome;
    private readonly PlanBuilder? _plan;
    private int? _outOfReach;
    private int? _notACall;

    public PreparedDecision(PatchDiagnostic failed) => Failed = failed;

    public PreparedDecision(PlanOutcome outcome, CodeTemplate? template, int budget, PlanBuilder plan)
    {
        _outcome = outcome;
        _plan = plan;
        Template = template;
        Outcome = plan.OutcomeIndex(outcome);
        Ready = template is null ? ReadyDecision.LeaveAlone(Outcome, budget) : ReadyDecision.Write(Outcome, template);
    }

    /// <summary>Why there can be no plan, but for the site it concerns.</summary>
    public PatchDiagnostic? Failed { get; }

    public PatchAction? Action => _outcome?.Action;

    public int Outcome { get; }

    /// <summary>The bytes to be; none where the site is left alone.</summary>
    public CodeTemplate? Template { get; }

    public ReadyDecision Ready { get; }

    public int OutOfReach() => _outOfReach ??= LeftAlone(PatchReason.OutOfReach);

    public int NotACall() => _notACall ??= LeftAlone(PatchReason.NotACall);

    private int LeftAlone(PatchReason reason) =>
        _plan!.OutcomeIndex(_outcome! with { Action = PatchAction.LeaveAlone, Reason = reason });
}
