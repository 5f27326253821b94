using System.Globalization;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>What a plan says of one site: a view into the plan, made when asked for.</summary>
public readonly struct SiteDecision
{
    private readonly PatchPlan _plan;
    private readonly int _index;

    internal SiteDecision(PatchPlan plan, int index)
    {
        _plan = plan;
        _index = index;
    }

    /// <summary>The site's place in the plan, in order of address.</summary>
    public int Index => _index;

    /// <summary>Run address of the first byte.</summary>
    public VirtualAddress Address => _plan.Entries[_index].Address;

    /// <summary>Length in bytes.</summary>
    public int Length => _plan.Entries[_index].Length;

    /// <summary>What is shared with other sites: label, action, reason, target.</summary>
    public PlanOutcome Outcome => _plan.Outcomes[_plan.Entries[_index].Outcome];

    /// <summary>What the site stands for; a slot's name, for ops sites.</summary>
    public string Label => Outcome.Label;

    /// <summary>What is done.</summary>
    public PatchAction Action => Outcome.Action;

    /// <summary>Why nothing is done, for <see cref="PatchAction.LeaveAlone"/>.</summary>
    public PatchReason Reason => Outcome.Reason;

    /// <summary>What the site allows to be destroyed, where the mechanism knows.</summary>
    public RegisterSet? Clobbers => Outcome.Clobbers;

    /// <summary>Where a call or jump goes.</summary>
    public VirtualAddress? Target => Outcome.Target;

    /// <summary>The name of the segment the site lies in.</summary>
    public string Section => _plan.SectionOf(Address);

    /// <summary>The bytes of the original image.</summary>
    public ReadOnlySpan<byte> OldBytes => _plan.OldBytesOf(_index);

    /// <summary>The bytes the plan puts there; equal to <see cref="OldBytes"/> where the site is left alone.</summary>
    public ReadOnlySpan<byte> NewBytes => _plan.NewBytesOf(_index);

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Address} {Label} {Action}{(Reason == PatchReason.None ? "" : $" ({Reason})")}: {HexBytes.Format(OldBytes)} -> {HexBytes.Format(NewBytes)}");
}
