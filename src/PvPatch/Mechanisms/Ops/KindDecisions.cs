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
    private readonly TemplateStore _templates;
    private readonly Dictionary<ulong, Decision> _made = [];

    /// <summary>
    /// The outcomes by slot, clobbers, action and reason; what else they say follows from these, but for the detail of some.
    /// </summary>
    private readonly Dictionary<ulong, int> _outcomes = [];

    private PatchSite[] _kinds = [];

    public KindDecisions(Backend backend, PlanOptions options, TemplateStore templates, NopStyle nops, int bitness)
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
    /// The decision for each kind of the table that <see cref="Decide(SiteTable, ThunkPlanner)"/> was called for last.
    /// </summary>
    public Decision[] Decisions { get; private set; } = [];

    /// <summary>The same as the walk over the sites wants them.</summary>
    public WalkedKind[] Walked { get; private set; } = [];

    /// <summary>How many sites of forms change where each follows the decision for its kind.</summary>
    public int Changes { get; private set; }

    /// <summary>Whether some kind's operation is missing.</summary>
    public bool SomeAreMissing { get; private set; }

    /// <summary>
    /// The lowest and the highest <see cref="NewForm.Origin"/> of <see cref="Walked"/> that has a fix-up; the other way around where none
    /// has.
    /// </summary>
    public (ulong Lowest, ulong Highest) Origins { get; private set; }

    /// <summary>Decides for each kind of a table, where that was not done before.</summary>
    /// <param name="table">The table.</param>
    /// <param name="thunks">Who places thunks.</param>
    public void Decide(SiteTable table, ThunkPlanner thunks)
    {
        if (ReferenceEquals(table.Kinds, _kinds))
        {
            return; // the table of the last plan
        }

        PatchSite[] kinds = table.Kinds;
        _made.EnsureCapacity(Math.Min(kinds.Length, KeptDecisions));
        var decisions = new Decision[kinds.Length];
        var walked = new WalkedKind[kinds.Length];
        (ulong lowest, ulong highest) = (ulong.MaxValue, ulong.MinValue);
        bool missing = false;
        int changes = 0;
        for (int i = 0; i < kinds.Length; i++)
        {
            ref Decision? decision = ref CollectionsMarshal.GetValueRefOrAddDefault(_made, kinds[i].DecisionKey, out _);
            decision ??= Decide(kinds[i], thunks);
            decisions[i] = decision;
            walked[i] = Walk(decision, kinds[i].Budget);
            missing |= decision.IsMissing;
            changes += table.CountOfKind[i] * ChangesOf(decision);
            if (decision.Form >= 0 && Forms.News[decision.Form] is { HasDistance: true } form)
            {
                lowest = Math.Min(lowest, form.Origin);
                highest = Math.Max(highest, form.Origin);
            }
        }

        (Decisions, Walked, SomeAreMissing, Changes) = (decisions, walked, missing, changes);
        (Origins, _kinds) = ((lowest, highest), kinds);
    }

    /// <summary>1 where a site of a form changes if it follows a decision; 0 where it keeps its bytes or has no form.</summary>
    public int ChangesOf(Decision decision) => decision.Form >= 0 ? Forms.News[decision.Form].Changes : 0;

    private Decision Decide(in PatchSite site, ThunkPlanner thunks)
    {
        OpsLayout layout = _backend.Layout;
        if (site.Slot >= layout.Count)
        {
            return Decision.Fail(
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
            return Decision.Fail(PatchDiagnostic.Error(DiagnosticCodes.SiteDataSlot, $"the site names {slot}, which no code calls"));
        }

        Decision decision;
        try
        {
            decision = _decider.Decide(slot, _backend[site.Slot], site);
        }
        catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.BodyInvalid)
        {
            return Decision.Fail(e.Diagnostic with { Source = slot.Name });
        }

        if (decision.Failed is not null)
        {
            return decision;
        }

        if (decision.Thunk is ThunkCode request)
        {
            if (thunks.Place(request, decision.TargetName) is VirtualAddress thunk)
            {
                decision.Template = _templates.Call(thunk, site.Budget);
            }
            else
            {
                decision = Decision.LeaveAlone(
                    request.Saves.IsEmpty ? PatchReason.NeedsThunk : PatchReason.ClobbersTooMuch, "no room for a thunk in reach");
            }
        }

        decision.Outcome = OutcomeIndex(slot, site, decision);
        if (site.Budget <= SiteBytes.MaxLength)
        {
            decision.Form = decision.Template is null ? Forms.Kept(decision.Outcome) : Forms.Written(decision.Outcome, decision.Template);
        }

        return decision;
    }

    /// <summary>The outcome of a site where a decision can't be followed.</summary>
    /// <param name="decision">The decision for the site's kind.</param>
    /// <param name="reason">Why it can't.</param>
    public int LeftAlone(Decision decision, PatchReason reason) =>
        Forms.OutcomeIndex(Forms.Outcomes[decision.Outcome] with { Action = PatchAction.LeaveAlone, Reason = reason });

    /// <summary>
    /// What the walk over the sites needs of a decision. A body that is itself a call through memory could be what stands at a site
    /// already: such sites are compared one by one.
    /// </summary>
    private static WalkedKind Walk(Decision decision, int budget) =>
        decision.Form < 0 || decision.Template is { HasIndirectBranch: true } ? default : new WalkedKind(budget, decision.Form);

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
