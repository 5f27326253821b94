using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// What is to be done at all sites that share slot, budget, clobbers and traits. Whether a target is in reach is found out at each
/// site.
/// </summary>
internal sealed class Decision
{
    public required PatchAction Action { get; init; }

    public PatchReason Reason { get; init; }

    /// <summary>The bytes to be; none where the site is left alone or <see cref="Thunk"/> has no address yet.</summary>
    public CodeTemplate? Template { get; set; }

    public VirtualAddress? Target { get; init; }

    public string? TargetName { get; init; }

    public string? Detail { get; init; }

    /// <summary>The thunk a call is to go through: its address is known once it has been placed.</summary>
    public ThunkCode? Thunk { get; init; }

    /// <summary>
    /// Why there can be no plan, but for the site it concerns: the table or the body is wrong, the kernel of these rules would stop here.
    /// </summary>
    public PatchDiagnostic? Failed { get; init; }

    /// <summary>In a plan: the number of what is said of the sites, see <see cref="PlanForms"/>.</summary>
    public int Outcome { get; set; } = -1;

    /// <summary>In a plan: the number of the new form; -1 where no form describes the bytes.</summary>
    public int Form { get; set; } = -1;

    /// <summary>Whether the operation is missing, and something stands at the site that says so.</summary>
    public bool IsMissing => Action is PatchAction.Trap or PatchAction.CallBug;

    public static Decision Fail(PatchDiagnostic failed) => new() { Action = PatchAction.LeaveAlone, Failed = failed };

    public static Decision LeaveAlone(PatchReason reason, string? detail = null) =>
        new() { Action = PatchAction.LeaveAlone, Reason = reason, Detail = detail };
}
