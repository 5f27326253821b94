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

    /// <summary>The bytes to be; none where the site is left alone or <see cref="Thunk"/> is asked for.</summary>
    public CodeTemplate? Template { get; init; }

    public VirtualAddress? Target { get; init; }

    public string? TargetName { get; init; }

    public string? Detail { get; init; }

    /// <summary>The thunk a call is to go through: its address is known once it has been placed.</summary>
    public ThunkCode? Thunk { get; init; }

    /// <summary>The finding that fails the plan: the kernel of these rules would stop here.</summary>
    public PatchDiagnostic? Stop { get; init; }

    public static Decision LeaveAlone(PatchReason reason, string? detail = null) =>
        new() { Action = PatchAction.LeaveAlone, Reason = reason, Detail = detail };
}
