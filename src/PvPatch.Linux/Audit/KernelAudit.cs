using PvPatch.Analysis;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Audit;

/// <summary>What an audit says of a site.</summary>
internal enum AuditVerdict
{
    /// <summary>Nothing that is destroyed there is read behind it.</summary>
    Proved,

    /// <summary>It is not known whether what is destroyed is read.</summary>
    Undecided,

    /// <summary>A register is destroyed that is read behind the site.</summary>
    Contradiction,
}

/// <summary>One site under one backend.</summary>
/// <param name="Site">The site.</param>
/// <param name="Slot">Its slot.</param>
/// <param name="Verdict">The verdict.</param>
/// <param name="Destroys">What the code put there destroys, its result left out.</param>
/// <param name="Breaks">What of it the slot's convention keeps.</param>
/// <param name="Use">The first read of a register that is destroyed, or may be.</param>
/// <param name="Undecided">Why what the code destroys is not known.</param>
internal sealed record AuditedSite(
    PatchSite Site, OpSlot Slot, AuditVerdict Verdict, RegisterSet Destroys, RegisterSet Breaks, RegisterUse? Use,
    PatchDiagnostic? Undecided);

/// <summary>The function of one slot under one backend.</summary>
/// <param name="Slot">The slot.</param>
/// <param name="Effects">What the function does.</param>
/// <param name="Breaks">What it destroys though the slot's convention keeps it, the stack pointer included.</param>
/// <param name="Spared">What the convention lets it destroy and it does not.</param>
internal sealed record AuditedSlot(OpSlot Slot, FunctionEffects Effects, RegisterSet Breaks, RegisterSet Spared);

/// <summary>Checks what is put at a kernel's sites against what is live behind them: computed, not taken from masks.</summary>
internal sealed class KernelAudit
{
    private readonly KernelImage _image;
    private readonly KernelCodeFacts _facts;
    private readonly SiteLiveness?[] _liveness;

    public KernelAudit(KernelImage image)
    {
        _image = image;
        _facts = new KernelCodeFacts(image);
        _liveness = new SiteLiveness?[image.Sites.Count];
        Analyzer = new CodeAnalyzer(image.Code, _facts);
    }

    public CodeAnalyzer Analyzer { get; }

    /// <summary>What is live behind a site.</summary>
    public SiteLiveness LivenessBehind(int site)
    {
        PatchSite at = _image.Sites[site];
        return _liveness[site] ??= Analyzer.LivenessAt(at.End, _facts.LiveAtReturn(at.Address));
    }

    /// <summary>Audits the sites of a plan made for the image.</summary>
    public IReadOnlyList<AuditedSite> Audit(PatchPlan plan, Backend backend, CancellationToken cancellation = default)
    {
        var audited = new List<AuditedSite>(_image.Sites.Count);
        for (int i = 0; i < _image.Sites.Count; i++)
        {
            cancellation.ThrowIfCancellationRequested();
            PatchSite site = _image.Sites[i];
            int at = plan.IndexContaining(site.Address);
            if (at >= 0)
            {
                audited.Add(Audit(i, plan[at], backend));
            }
        }

        return audited;
    }

    /// <summary>
    /// Checks the functions that a backend's slots hold against the slots' conventions, whether or not a site calls them.
    /// </summary>
    public IReadOnlyList<AuditedSlot> AuditSlots(Backend backend)
    {
        var audited = new List<AuditedSlot>();
        foreach (OpSlot slot in _image.Layout.Slots)
        {
            if (slot.Kind == SlotKind.Call && backend[slot.Index].Target is VirtualAddress target)
            {
                FunctionEffects effects = Analyzer.EffectsOf(target);
                RegisterSet allowed = CallConventions.DestroyedBy(slot.Convention, 64);
                RegisterSet breaks = effects.Destroys.Except(allowed) | (effects.IsStackBalanced ? RegisterSet.None : RegisterSet.Rsp);
                audited.Add(new AuditedSlot(slot, effects, breaks, allowed.Except(effects.Destroys)));
            }
        }

        return audited;
    }

    private AuditedSite Audit(int index, SiteDecision decision, Backend backend)
    {
        PatchSite site = _image.Sites[index];
        OpSlot slot = _image.Layout[site.Slot];
        FunctionEffects effects = EffectsOf(decision, backend[slot.Index].Target);
        RegisterSet result = SlotPrototypes.Results(_facts.Slots.Of(slot)?.Results ?? 1);
        RegisterSet destroyed = (effects.Returns ? effects.Destroys : RegisterSet.None).Except(result);
        // what is jumped to does not come back
        RegisterSet breaks = slot.Kind == SlotKind.Jump
            ? RegisterSet.None : effects.Destroys.Except(CallConventions.DestroyedBy(slot.Convention, 64));
        SiteLiveness liveness = LivenessBehind(index);
        RegisterSet hit = destroyed & liveness.Live;
        RegisterSet maybe = destroyed & liveness.MayBeLive;
        AuditVerdict verdict = effects.Undecided is not null && !(hit | maybe).IsEmpty ? AuditVerdict.Undecided
            : !hit.IsEmpty ? AuditVerdict.Contradiction
            : !maybe.IsEmpty ? AuditVerdict.Undecided
            : AuditVerdict.Proved;
        RegisterUse? use = verdict == AuditVerdict.Proved ? null : liveness.FirstUse(First(hit.IsEmpty ? maybe : hit));
        return new AuditedSite(site, slot, verdict, destroyed, breaks, use, effects.Undecided);
    }

    private static RegisterSet First(RegisterSet set) => RegisterSet.FromBits(set.Bits & (0 - set.Bits));

    /// <summary>What the new bytes of a site destroy, called functions included.</summary>
    private FunctionEffects EffectsOf(SiteDecision decision, VirtualAddress? target)
    {
        if (decision.Action is PatchAction.Call or PatchAction.Jump && decision.Target is VirtualAddress function)
        {
            return Analyzer.EffectsOf(function);
        }

        byte[] code = [.. decision.NewBytes, 0xc3];
        return new CodeAnalyzer(new CodeImage(decision.Address, code), new SiteFacts(this, target)).EffectsOf(decision.Address);
    }

    /// <summary>The site's bytes alone: what they call is in the kernel, and what they call through the table is the backend's.</summary>
    private sealed class SiteFacts(KernelAudit audit, VirtualAddress? target) : ICodeFacts
    {
        public CallConvention? Convention => CallConvention.KernelSysV;

        public FunctionFacts? FunctionAt(VirtualAddress address) => audit._image.Code.Find(address, 1) is null ? null : Of(address);

        public FunctionFacts? CalledFrom(VirtualAddress instruction) => target is VirtualAddress known ? Of(known) : null;

        private FunctionFacts Of(VirtualAddress address) => new() { Destroys = audit.Analyzer.EffectsOf(address).Destroys };
    }
}
