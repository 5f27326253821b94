using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>
/// What many sites of a plan share: the name of what is patched and what is done. The plan's entries point here, so a hundred
/// thousand sites need a few hundred of these.
/// </summary>
public sealed record PlanOutcome
{
    /// <summary>What the site stands for in its mechanism: a slot's name, for ops sites.</summary>
    public required string Label { get; init; }

    /// <summary>The mechanism's own number for it (the slot's type number), where it has one.</summary>
    public int? Type { get; init; }

    /// <summary>What the site allows to be destroyed, where the mechanism knows.</summary>
    public RegisterSet? Clobbers { get; init; }

    /// <summary>What is done.</summary>
    public required PatchAction Action { get; init; }

    /// <summary>Why nothing is done, for <see cref="PatchAction.LeaveAlone"/>.</summary>
    public PatchReason Reason { get; init; }

    /// <summary>The address that a call or jump goes to.</summary>
    public VirtualAddress? Target { get; init; }

    /// <summary>The target's name.</summary>
    public string? TargetName { get; init; }

    /// <summary>A remark: the condition of an alternative, the registers a thunk saves.</summary>
    public string? Detail { get; init; }
}
