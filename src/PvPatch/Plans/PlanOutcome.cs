using System.Globalization;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>What a plan does at a site.</summary>
public enum PatchAction
{
    /// <summary>The site keeps its bytes; <see cref="PatchReason"/> says why.</summary>
    LeaveAlone,

    /// <summary>The whole site becomes nops.</summary>
    Nop,

    /// <summary>A move of the first argument to the result register, or nops where the two are one.</summary>
    Identity,

    /// <summary>The operation's own instructions.</summary>
    Inline,

    /// <summary>A direct call.</summary>
    Call,

    /// <summary>A direct jump.</summary>
    Jump,

    /// <summary>A direct call of a thunk that saves registers around the target.</summary>
    ThunkCall,

    /// <summary>A trap (<c>ud2</c>): the operation is missing.</summary>
    Trap,

    /// <summary>A direct call of the kernel's own "this must not happen" function: the operation is missing.</summary>
    CallBug,

    /// <summary>Not a site but room the host gave: a thunk is written there.</summary>
    Thunk,

    /// <summary>Not a site but a record of a table: it is written so that the image's own patcher leaves the site it names alone.</summary>
    Record,

    /// <summary>Not a site but a slot of running code: the word that holds the function of an operation.</summary>
    Slot,

    /// <summary>The same instruction with another immediate or displacement.</summary>
    Constant,
}

/// <summary>Why a site is left alone.</summary>
public enum PatchReason
{
    /// <summary>It is not left alone.</summary>
    None,

    /// <summary>Neither a body nor a 5-byte call or jump fits the budget.</summary>
    TooSmall,

    /// <summary>The body or target destroys more than the site allows.</summary>
    ClobbersTooMuch,

    /// <summary>The target is more than 2 GiB away.</summary>
    OutOfReach,

    /// <summary>There is no indirect call or jump at the site.</summary>
    NotACall,

    /// <summary>The site has no usable stack, and what would be put there needs one.</summary>
    NeedsStack,

    /// <summary>The backend's own patch function leaves such sites alone.</summary>
    BackendDeclines,

    /// <summary>The rules do nothing for such sites (2.6.20 and 2.6.21 have no default).</summary>
    RulesDecline,

    /// <summary>
    /// The slot's function changes while the kernel starts, so that the site has to stay a call through the slot until the kernel patches
    /// it.
    /// </summary>
    ChangesWhileBooting,

    /// <summary>The site can be changed only while no thread is in the code, and does the same through its slot.</summary>
    NeedsQuiescence,

    /// <summary>The target must be called through a thunk, which brings its arguments over, and there is no room for one.</summary>
    NeedsThunk,
}

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
    public int Length => _plan.LengthOf(_index);

    /// <summary>What is shared with other sites: label, action, reason, target.</summary>
    public PlanOutcome Outcome => _plan.OutcomeAt(_plan.OutcomeIndexOf(_index));

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

    /// <summary>The bytes of the original image. They are put together when asked for, in memory of their own.</summary>
    public ReadOnlySpan<byte> OldBytes => _plan.OldBytesOf(_index, new byte[SiteBytes.MaxLength]);

    /// <summary>
    /// The bytes the plan puts there; equal to <see cref="OldBytes"/> where the site is left alone. They are put together when asked for,
    /// in memory of their own.
    /// </summary>
    public ReadOnlySpan<byte> NewBytes => _plan.NewBytesOf(_index, new byte[SiteBytes.MaxLength]);

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{Address} {Label} {Action}{(Reason == PatchReason.None ? "" : $" ({Reason})")}: {HexBytes.Format(OldBytes)} -> "
            + $"{HexBytes.Format(NewBytes)}");
}
