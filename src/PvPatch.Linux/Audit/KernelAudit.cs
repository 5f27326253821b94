using System.Diagnostics.CodeAnalysis;
using PvPatch.Analysis;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Audit;

/// <summary>
/// Checks the registers destroyed at a kernel's sites against those live behind them; both are computed, not taken from clobber masks.
/// </summary>
internal sealed class KernelAudit
{
    private readonly KernelImage _image;
    private readonly KernelCodeFacts _facts;
    private readonly SiteLiveness?[] _liveness;

    private KernelAudit(KernelImage image)
    {
        _image = image;
        _facts = new KernelCodeFacts(image);
        _liveness = new SiteLiveness?[image.Sites.Count];
        Analyzer = new CodeAnalyzer(image.Code, _facts);
    }

    public CodeAnalyzer Analyzer { get; }

    /// <summary>Makes an audit of a kernel.</summary>
    /// <param name="image">The kernel; read only.</param>
    /// <param name="audit">The audit.</param>
    /// <param name="error">PV6170: the kernel is one of 32 bits.</param>
    /// <returns>Whether there is one.</returns>
    public static bool TryCreate(
        KernelImage image, [NotNullWhen(true)] out KernelAudit? audit, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (image.Bitness == 64)
        {
            audit = new KernelAudit(image);
            error = null;
            return true;
        }

        audit = null;
        error = PatchDiagnostic.Error(KernelDiagnosticCodes.AuditNotSupported, "only kernels of 64 bits can be audited") with
        {
            Found = "a kernel of 32 bits",
        };
        return false;
    }

    /// <summary>Audits all sites and slots under backends. All are planned before the first is audited.</summary>
    /// <param name="machines">The machines the kernel boots on.</param>
    /// <param name="audits">The audits, in the order of the machines.</param>
    /// <param name="diagnostics">Why there are none: what <see cref="KernelPlanner"/> says.</param>
    /// <param name="cancellation">Stops the work.</param>
    /// <returns>Whether every machine could be planned.</returns>
    public bool TryAudit(
        IReadOnlyList<BootMachine> machines, [NotNullWhen(true)] out IReadOnlyList<BackendAudit>? audits,
        out IReadOnlyList<PatchDiagnostic> diagnostics, CancellationToken cancellation = default)
    {
        audits = null;
        var planner = new KernelPlanner();
        var plans = new List<(PatchPlan Plan, Backend Backend)>();
        foreach (BootMachine machine in machines)
        {
            if (!KernelBackends.TryCreate(_image, machine, out Backend? backend, out PatchDiagnostic? error))
            {
                diagnostics = [error];
                return false;
            }

            if (!planner.TryPlan(_image, machine, backend, out PatchPlan? plan, out diagnostics))
            {
                return false;
            }

            plans.Add((plan, backend));
        }

        diagnostics = [];
        audits = [.. plans.Select(p => new BackendAudit(p.Plan, AuditSites(p.Plan, p.Backend, cancellation), AuditSlots(p.Backend)))];
        return true;
    }

    private List<AuditedSite> AuditSites(PatchPlan plan, Backend backend, CancellationToken cancellation)
    {
        var audited = new List<AuditedSite>(_image.Sites.Count);
        for (int i = 0; i < _image.Sites.Count; i++)
        {
            cancellation.ThrowIfCancellationRequested();
            PatchSite site = _image.Sites[i];
            int at = plan.IndexContaining(site.Address);
            if (at < 0 || plan[at].Address != site.Address || plan[at].Address + plan[at].Length != site.End)
            {
                throw new InvalidOperationException($"the plan has no decision for the site at {site.Address}");
            }

            audited.Add(AuditSite(i, plan[at], backend));
        }

        return audited;
    }

    private List<AuditedSlot> AuditSlots(Backend backend)
    {
        var audited = new List<AuditedSlot>();
        foreach (OpSlot slot in _image.Layout.Slots)
        {
            if (slot.Kind == SlotKind.Call && backend[slot.Index].Target is VirtualAddress target)
            {
                FunctionEffects effects = Analyzer.EffectsOf(target);
                RegisterSet spared = slot.Convention.DestroyedBy(64).Except(effects.Destroys);
                audited.Add(new AuditedSlot(slot, effects, BreaksOf(slot, new SiteEffects(effects)), spared));
            }
        }

        return audited;
    }

    private AuditedSite AuditSite(int index, SiteDecision decision, Backend backend)
    {
        PatchSite site = _image.Sites[index];
        OpSlot slot = _image.Layout[site.Slot];
        SiteEffects effects = EffectsOf(decision, backend[slot.Index].Target);
        RegisterSet destroyed = effects.Destroys.Except(SlotPrototypes.Results(_facts.Slots.Of(slot)?.Results ?? 1));
        SiteLiveness liveness = _liveness[index] ??= Analyzer.LivenessAt(site.End, _facts.LiveAtReturn(site.Address));
        RegisterSet hit = destroyed & liveness.Live;
        RegisterSet maybe = destroyed & liveness.MayBeLive;
        AuditVerdict verdict = (hit | maybe).IsEmpty ? AuditVerdict.Proved
            : hit.IsEmpty || effects.Undecided is not null ? AuditVerdict.Undecided
            : AuditVerdict.Contradiction;
        RegisterUse? use = verdict == AuditVerdict.Proved ? null : liveness.FirstUse(First(hit.IsEmpty ? maybe : hit));
        AuditCause? cause = verdict == AuditVerdict.Proved ? null
            : effects.Undecided is not null ? AuditCause.NotFollowed
            : use?.Kind switch
            {
                RegisterUseKind.Instruction => hit.IsEmpty ? AuditCause.PartWritten : AuditCause.Read,
                RegisterUseKind.Return => AuditCause.Returned,
                RegisterUseKind.Push => AuditCause.Pushed,
                _ => AuditCause.UnknownCode,
            };
        return new AuditedSite(
            site, slot, decision, verdict, cause, destroyed, BreaksOf(slot, effects), use, effects.Undecided ?? liveness.Undecided);
    }

    /// <summary>
    /// Registers that code is known to destroy and the slot's convention keeps. Code that is jumped to does not come back.
    /// </summary>
    private static RegisterSet BreaksOf(OpSlot slot, SiteEffects effects) =>
        slot.Kind == SlotKind.Jump || effects.Undecided is not null
            ? RegisterSet.None : effects.Destroys.Except(slot.Convention.DestroyedBy(64));

    private static RegisterSet First(RegisterSet set) => RegisterSet.FromBits(set.Bits & (0 - set.Bits));

    /// <summary>Registers that the new bytes of a site destroy, called functions included.</summary>
    private SiteEffects EffectsOf(SiteDecision decision, VirtualAddress? target)
    {
        if (decision.Action is PatchAction.Call or PatchAction.Jump && decision.Target is VirtualAddress function)
        {
            return new SiteEffects(Analyzer.EffectsOf(function));
        }

        byte[] code = [.. decision.NewBytes, 0xc3]; // ret
        var facts = new SiteFacts(this, decision.Address, target);
        var own = new SiteEffects(new CodeAnalyzer(new CodeImage(decision.Address, code), facts).EffectsOf(decision.Address));
        return new SiteEffects(own.Destroys | facts.Moved, own.Undecided ?? facts.Undecided);
    }

    /// <summary>Registers that code at a site destroys.</summary>
    /// <param name="Destroys">Registers that it destroys or may destroy; the stack pointer where it is moved.</param>
    /// <param name="Undecided">Reason why that is not known.</param>
    private readonly record struct SiteEffects(RegisterSet Destroys, PatchDiagnostic? Undecided)
    {
        public SiteEffects(FunctionEffects effects)
            : this(effects.Destroys | (effects.IsStackBalanced ? RegisterSet.None : RegisterSet.Rsp), effects.Undecided)
        {
        }
    }

    /// <summary>The site's bytes alone: what they call is in the kernel, and what they call through the table is the backend's.</summary>
    private sealed class SiteFacts(KernelAudit audit, VirtualAddress site, VirtualAddress? target) : ICodeFacts
    {
        public CallConvention? Convention => CallConvention.KernelSysV;

        /// <summary>The stack pointer, where something called moves it.</summary>
        public RegisterSet Moved { get; private set; }

        /// <summary>Reason why the effects of a called function are not known.</summary>
        public PatchDiagnostic? Undecided { get; private set; }

        public FunctionFacts? FunctionAt(VirtualAddress address) =>
            address == site || audit._image.Code.Find(address, 1) is null ? null : Of(address);

        public FunctionFacts? CalledFrom(VirtualAddress instruction) => target is VirtualAddress known ? Of(known) : null;

        /// <summary>Effects of a function beyond the destroyed registers that facts give, or the reason why they are not known.</summary>
        private FunctionFacts Of(VirtualAddress address)
        {
            FunctionEffects effects = audit.Analyzer.EffectsOf(address);
            Undecided ??= effects.Undecided;
            Moved |= effects.IsStackBalanced ? RegisterSet.None : RegisterSet.Rsp;
            return new FunctionFacts { Destroys = effects.Destroys };
        }
    }
}
