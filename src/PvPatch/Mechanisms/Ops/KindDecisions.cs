using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// What has been decided for one backend under one set of rules: once for all sites of a kind. A planner keeps it for its next plan, as long as no
/// decision depends on room for thunks.
/// </summary>
internal sealed class KindDecisions
{
    /// <summary>More decisions than this are not kept: a host that makes new sites for ever must not make its planner grow for ever.</summary>
    private const int KeptDecisions = 1 << 14;

    private const int KeptForms = 1 << 12;

    private readonly Backend _backend;
    private readonly PlanOptions _options;
    private readonly NopStyle _nops;
    private readonly OpsDecider _decider;
    private readonly TemplateCache _templates;
    private readonly Dictionary<ulong, KindDecision> _made = [];

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
        ReferenceEquals(backend, _backend) && bitness == Bitness && ReferenceEquals(nops, _nops) && ReferenceEquals(options.Rules, _options.Rules)
        && options.Thunks is null && options.BugTarget == _options.BugTarget && options.BugTargetName == _options.BugTargetName;

    /// <summary>The decision for each kind, made now where it was not made before.</summary>
    /// <param name="kinds">A site of each kind.</param>
    /// <param name="thunks">Who places thunks.</param>
    public KindDecision[] For(PatchSite[] kinds, ThunkPlanner? thunks)
    {
        var decisions = new KindDecision[kinds.Length];
        for (int i = 0; i < kinds.Length; i++)
        {
            ulong key = kinds[i].DecisionKey;
            if (!_made.TryGetValue(key, out KindDecision? decision))
            {
                decision = Decide(kinds[i], thunks);
                _made.Add(key, decision);
            }

            decisions[i] = decision;
        }

        return decisions;
    }

    private KindDecision Decide(in PatchSite site, ThunkPlanner? thunks)
    {
        OpsLayout layout = _backend.Layout;
        if (site.Slot >= layout.Count)
        {
            return new KindDecision(PatchDiagnostic.Error(DiagnosticCodes.SiteUnknownSlot, "the site names a slot the layout does not have") with
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
            if (thunks!.Place(request, decision.TargetName) is VirtualAddress thunk)
            {
                template = _templates.Call(thunk, site.Budget);
            }
            else
            {
                outcome = outcome with
                {
                    Action = PatchAction.LeaveAlone,
                    Reason = PatchReason.ClobbersTooMuch,
                    Target = null,
                    TargetName = null,
                    Detail = "no room for a thunk in reach",
                };
            }
        }

        return new KindDecision(outcome, template, site.Budget, Forms, Reader);
    }
}

/// <summary>The decision for one kind of site, with its template and its form, and the outcomes that sites come to where it can't be followed.</summary>
internal sealed class KindDecision
{
    private readonly PlanForms? _forms;
    private readonly PlanOutcome? _outcome;

    public KindDecision(PatchDiagnostic failed) => Failed = failed;

    public KindDecision(PlanOutcome outcome, CodeTemplate? template, int budget, PlanForms forms, SiteFormReader reader)
    {
        _forms = forms;
        _outcome = outcome;
        Template = template;
        Outcome = forms.OutcomeIndex(outcome);
        if (budget > SiteVector.MaxLength)
        {
            return;
        }

        Form = template is null ? forms.Kept(Outcome) : forms.Written(Outcome, template);
        if (Form < 0)
        {
            return;
        }

        bool hasFixup = template is { FixupSpan.Length: 1 };
        // A body that is itself a call through memory could be what stands at a site already: such sites are compared one by one.
        if (template is null || reader.Read(template.Bytes, 0, out _) == SiteForm.OtherCode)
        {
            Walked = new WalkedKind
            {
                Origin = forms.News[Form].Origin,
                DistanceMask = hasFixup ? -1 : 0,
                Form = Form,
                Length = budget,
            };
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
    public bool IsMissing => _outcome?.Action is PatchAction.Trap or PatchAction.CallBug;

    public int OutOfReach() => LeftAlone(PatchReason.OutOfReach);

    public int NotACall() => LeftAlone(PatchReason.NotACall);

    private int LeftAlone(PatchReason reason) => _forms!.OutcomeIndex(_outcome! with { Action = PatchAction.LeaveAlone, Reason = reason });
}

/// <summary>A decision as the walk over the sites wants it: all in a form that needs no branch on what kind of decision it is.</summary>
internal struct WalkedKind
{
    public ulong Origin;

    /// <summary>Ones where there is a fix-up, so that its distance is looked at.</summary>
    public long DistanceMask;

    public int Form;

    /// <summary>The sites' length; 0 where nothing is known.</summary>
    public int Length;
}
