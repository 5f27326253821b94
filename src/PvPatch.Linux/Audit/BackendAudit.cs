using PvPatch.Analysis;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Audit;

/// <summary>Verdict of an audit on a site.</summary>
internal enum AuditVerdict
{
    /// <summary>No register destroyed at the site is read behind it.</summary>
    Proved,

    /// <summary>It is not known whether what is destroyed is read.</summary>
    Undecided,

    /// <summary>A register is destroyed that is read behind the site.</summary>
    Contradiction,
}

/// <summary>Reason why a site is not proved.</summary>
internal enum AuditCause
{
    /// <summary>The code put or called there could not be followed.</summary>
    NotFollowed,

    /// <summary>An instruction reads the register.</summary>
    Read,

    /// <summary>An instruction reads the register, part of which was written in between.</summary>
    PartWritten,

    /// <summary>The function returns, and its caller may read the register.</summary>
    Returned,

    /// <summary>The register is pushed.</summary>
    Pushed,

    /// <summary>Code that is not known may read the register.</summary>
    UnknownCode,
}

/// <summary>One site under one backend.</summary>
/// <param name="Site">The site.</param>
/// <param name="Slot">Its slot.</param>
/// <param name="Decision">The plan's decision.</param>
/// <param name="Verdict">The verdict.</param>
/// <param name="Cause">Why it is not proved; <see langword="null"/> where it is.</param>
/// <param name="Destroys">
/// Registers that the code put there destroys or may destroy, without its result; the stack pointer where it is moved.
/// </param>
/// <param name="Breaks">Those of them that the slot's convention keeps; empty where the destroyed registers are not known.</param>
/// <param name="Use">The first read of a register that is destroyed, or may be.</param>
/// <param name="Undecided">Reason why the destroyed or the live registers are not known.</param>
internal sealed record AuditedSite(
    PatchSite Site, OpSlot Slot, SiteDecision Decision, AuditVerdict Verdict, AuditCause? Cause, RegisterSet Destroys, RegisterSet Breaks,
    RegisterUse? Use, PatchDiagnostic? Undecided);

/// <summary>The function of one slot under one backend.</summary>
/// <param name="Slot">The slot.</param>
/// <param name="Effects">Effects of the function.</param>
/// <param name="Breaks">
/// Registers that it destroys though the slot's convention keeps them, the stack pointer included; empty where its effects are not known.
/// </param>
/// <param name="Spared">Registers that the convention lets it destroy and that it keeps.</param>
internal sealed record AuditedSlot(OpSlot Slot, FunctionEffects Effects, RegisterSet Breaks, RegisterSet Spared);

/// <summary>The audit of a kernel's sites and slots under one backend.</summary>
internal sealed class BackendAudit(PatchPlan plan, IReadOnlyList<AuditedSite> sites, IReadOnlyList<AuditedSlot> slots)
{
    public PatchPlan Plan => plan;

    /// <summary>All sites of the kernel, in order of address.</summary>
    public IReadOnlyList<AuditedSite> Sites => sites;

    /// <summary>The slots that hold a function that is called, whether or not a site calls it.</summary>
    public IReadOnlyList<AuditedSlot> Slots => slots;

    /// <summary>Slots whose function destroys what their convention keeps.</summary>
    public IEnumerable<AuditedSlot> BrokenSlots => slots.Where(static s => !s.Breaks.IsEmpty);

    /// <summary>Slots with a function whose destroyed registers are not known.</summary>
    public IEnumerable<AuditedSlot> UndecidedSlots => slots.Where(static s => s.Effects.Undecided is not null);

    /// <summary>The number of sites with a verdict.</summary>
    public int Count(AuditVerdict verdict) => sites.Count(s => s.Verdict == verdict);

    /// <summary>Sites at which a register is destroyed that the convention of their slot keeps.</summary>
    public int Broken => sites.Count(static s => !s.Breaks.IsEmpty);

    /// <summary>Whether there is no contradiction, and no site or slot is known to break its convention.</summary>
    public bool IsSound => Broken == 0 && Count(AuditVerdict.Contradiction) == 0 && !BrokenSlots.Any();

    /// <summary>Reasons why sites are undecided, most frequent first.</summary>
    public IEnumerable<(AuditCause Cause, int Count)> Causes => sites
        .Where(static s => s.Verdict == AuditVerdict.Undecided)
        .GroupBy(static s => s.Cause!.Value)
        .Select(static g => (g.Key, g.Count()))
        .OrderByDescending(static c => c.Item2)
        .ThenBy(static c => c.Key);

    /// <summary>The findings of the plan, and once each reason why a site or slot is undecided.</summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics =>
        [.. plan.Diagnostics
            .Concat(slots.Select(static s => s.Effects.Undecided).OfType<PatchDiagnostic>())
            .Concat(sites.Select(static s => s.Undecided).OfType<PatchDiagnostic>())
            .Distinct()];
}
