using System.Runtime.InteropServices;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// What has been decided for one backend under one set of rules: once for all sites of a kind. A planner keeps it for later plans, as long
/// as no decision depends on room for thunks.
/// </summary>
internal sealed class KindDecisions
{
    /// <summary>
    /// More decisions than this are not kept: a host that makes new sites for ever must not make its planner grow for ever.
    /// </summary>
    private const int KeptDecisions = 1 << 14;

    private const int KeptForms = 1 << 12;

    private readonly Backend _backend;
    private readonly PlanOptions _options;
    private readonly NopStyle _nops;
    private readonly OpsDecider _decider;
    private readonly TemplateCache _templates;
    private readonly Dictionary<ulong, KindDecision> _made = [];

    /// <summary>
    /// The outcomes by slot, clobbers, action and reason; what else they say follows from these, but for the detail of some.
    /// </summary>
    private readonly Dictionary<ulong, int> _outcomes = [];

    private PatchSite[] _kinds = [];

    public KindDecisions(Backend backend, PlanOptions options, TemplateCache templates, NopStyle nops, int bitness)
    {
        _backend = backend;
        _options = options.Previous is null ? options : options with { Previous = null }; // not to be kept alive from here
        _nops = nops;
        _templates = templates;
        Bitness = bitness;
        _decider = new OpsDecider(_options, templates, bitness);
        Reader = new SiteFormReader(bitness, Forms);
    }

    public int Bitness { get; }

    public PlanForms Forms { get; } = new();

    public SiteFormReader Reader { get; }

    /// <summary>Whether another plan may go on from here.</summary>
    public bool CanBeKept => _options.Thunks is null && _made.Count <= KeptDecisions && Forms.OldCount <= KeptForms;

    /// <summary>Whether the decisions hold for a plan.</summary>
    public bool AreFor(Backend backend, PlanOptions options, NopStyle nops, int bitness) =>
        ReferenceEquals(backend, _backend) && bitness == Bitness && ReferenceEquals(nops, _nops)
            && ReferenceEquals(options.Rules, _options.Rules)
        && options.Thunks is null && options.BugTarget == _options.BugTarget && options.BugTargetName == _options.BugTargetName;

    /// <summary>
    /// The decision for each kind of the table that <see cref="Decide(PatchSite[], ThunkPlanner?)"/> was called for last.
    /// </summary>
    public KindDecision[] Decisions { get; private set; } = [];

    /// <summary>The same as the walk over the sites wants them.</summary>
    public WalkedKind[] Walked { get; private set; } = [];

    /// <summary>Whether some kind's operation is missing.</summary>
    public bool SomeAreMissing { get; private set; }

    /// <summary>
    /// The lowest and the highest <see cref="NewForm.Origin"/> of <see cref="Walked"/> that has a fix-up; the other way around where none
    /// has.
    /// </summary>
    public (ulong Lowest, ulong Highest) Origins { get; private set; }

    /// <summary>Decides for each kind of a table, where that was not done before.</summary>
    /// <param name="kinds">A site of each kind.</param>
    /// <param name="thunks">Who places thunks.</param>
    public void Decide(PatchSite[] kinds, ThunkPlanner? thunks)
    {
        if (ReferenceEquals(kinds, _kinds))
        {
            return; // the table of the last plan
        }

        _made.EnsureCapacity(Math.Min(kinds.Length, KeptDecisions));
        var decisions = new KindDecision[kinds.Length];
        var walked = new WalkedKind[kinds.Length];
        (ulong lowest, ulong highest) = (ulong.MaxValue, ulong.MinValue);
        bool missing = false;
        for (int i = 0; i < kinds.Length; i++)
        {
            ref KindDecision? decision = ref CollectionsMarshal.GetValueRefOrAddDefault(_made, kinds[i].DecisionKey, out _);
            decision ??= Decide(kinds[i], thunks);
            decisions[i] = decision;
            walked[i] = decision.Walked;
            missing |= decision.IsMissing;
            if (decision.Form >= 0 && Forms.News[decision.Form] is { DistanceMask: not 0 } form)
            {
                lowest = Math.Min(lowest, form.Origin);
                highest = Math.Max(highest, form.Origin);
            }
        }

        (Decisions, Walked, SomeAreMissing, Origins, _kinds) = (decisions, walked, missing, (lowest, highest), kinds);
    }

    private KindDecision Decide(in PatchSite site, ThunkPlanner? thunks)
    {
        OpsLayout layout = _backend.Layout;
        if (site.Slot >= layout.Count)
        {
            return new KindDecision(
                PatchDiagnostic.Error(DiagnosticCodes.SiteUnknownSlot, "the site names a slot the layout does not have") with
                {
                    Found = $"slot {site.Slot}",
                    Expected = $"0 to {layout.Count - 1} ({layout.Name})",
                    Help = "Choose the layout of the kernel the table is from.",
                });
        }

        OpSlot slot = layout[site.Slot];
        if (slot.Kind == SlotKind.Data)
        {
            return new KindDecision(PatchDiagnostic.Error(DiagnosticCodes.SiteDataSlot, $"the site names {slot}, which no code calls"));
        }

        Decision decision;
        try
        {
            decision = _decider.Decide(slot, _backend[site.Slot], site);
        }
        catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.BodyInvalid)
        {
            return new KindDecision(e.Diagnostic with { Source = slot.Name });
        }

        if (decision.Stop is not null)
        {
            return new KindDecision(decision.Stop);
        }

        CodeTemplate? template = decision.Template;
        if (decision.Thunk is ThunkRequest request)
        {
            if (thunks!.Place(request, decision.TargetName) is VirtualAddress thunk)
            {
                template = _templates.Call(thunk, site.Budget);
            }
            else
            {
                decision = Decision.LeaveAlone(
                    request.Saves.IsEmpty ? PatchReason.NeedsThunk : PatchReason.ClobbersTooMuch, "no room for a thunk in reach");
            }
        }

        return new KindDecision(OutcomeIndex(slot, site, decision), template, site.Budget, Forms);
    }

    private int OutcomeIndex(OpSlot slot, in PatchSite site, Decision decision)
    {
        ulong key = (ulong)slot.Index << 48 | (ulong)decision.Action << 40 | (ulong)decision.Reason << 32 | site.Clobbers.Bits;
        ref int place = ref CollectionsMarshal.GetValueRefOrAddDefault(_outcomes, key, out bool known);
        if (!known || Forms.Outcomes[place].Detail != decision.Detail)
        {
            place = Forms.Add(new PlanOutcome
            {
                Label = slot.Name,
                Type = slot.Index,
                Clobbers = site.Clobbers,
                Action = decision.Action,
                Reason = decision.Reason,
                Target = decision.Target,
                TargetName = decision.TargetName,
                Detail = decision.Detail,
            });
        }

        return place;
    }
}

/// <summary>
/// The decision for one kind of site, with its template and its form, and the outcomes that sites come to where it can't be followed.
/// </summary>
internal sealed class KindDecision
{
    private readonly PlanForms? _forms;

    public KindDecision(PatchDiagnostic failed) => Failed = failed;

    public KindDecision(int outcome, CodeTemplate? template, int budget, PlanForms forms)
    {
        _forms = forms;
        Template = template;
        Outcome = outcome;
        if (budget > SiteBytes.MaxLength)
        {
            return;
        }

        Form = template is null ? forms.Kept(Outcome) : forms.Written(Outcome, template);
        if (Form < 0)
        {
            return;
        }

        // A body that is itself a call through memory could be what stands at a site already: such sites are compared one by one.
        if (template is null || !template.HasIndirectBranch)
        {
            Walked = new WalkedKind(budget, Form);
        }
    }

    /// <summary>Why there can be no plan, but for the site it concerns.</summary>
    public PatchDiagnostic? Failed { get; }

    public int Outcome { get; }

    /// <summary>The bytes to be; none where the site is left alone.</summary>
    public CodeTemplate? Template { get; }

    /// <summary>The number of the new form; -1 where no form describes the bytes.</summary>
    public int Form { get; } = -1;

    /// <summary>What the walk over the sites needs of it; empty where each site has to be looked at.</summary>
    public WalkedKind Walked { get; }

    /// <summary>Whether the operation is missing, and something stands at the site that says so.</summary>
    public bool IsMissing => _forms?.Outcomes[Outcome].Action is PatchAction.Trap or PatchAction.CallBug;

    public int OutOfReach() => LeftAlone(PatchReason.OutOfReach);

    public int NotACall() => LeftAlone(PatchReason.NotACall);

    private int LeftAlone(PatchReason reason) =>
        _forms!.OutcomeIndex(_forms.Outcomes[Outcome] with { Action = PatchAction.LeaveAlone, Reason = reason });
}

/// <summary>
/// A decision as the walk over the sites wants it: two words, in a form that needs no branch on what kind of decision it is.
/// </summary>
internal readonly struct WalkedKind(int length, int form)
{
    /// <summary>
    /// Where the old forms of the sites' length begin in <see cref="SiteFormReader.Known"/>; 0, where no site is recognised, if each has to
    /// be looked at.
    /// </summary>
    public int FirstForm { get; } = length * SiteFormReader.Ways;

    /// <summary>The number of the new form, where <see cref="PlanEntry.Store"/> wants it.</summary>
    public int NewForm { get; } = form << 16;
}
