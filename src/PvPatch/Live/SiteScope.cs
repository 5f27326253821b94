using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>The sites that a change is about.</summary>
public sealed class SiteScope
{
    private readonly string _name;

    private SiteScope(string name) => _name = name;

    /// <summary>Every site of the patcher's layout in its arena, and every slot.</summary>
    public static SiteScope All { get; } = new("all sites");

    internal bool IsAll => ReferenceEquals(this, All);

    internal OpSlot? OnlySlot { get; private init; }

    internal IReadOnlyList<LiveSite>? OnlySites { get; private init; }

    internal IReadOnlyList<CodeBlock>? OnlyBlocks { get; private init; }

    internal IReadOnlyList<CodeBlock>? LinkTargets { get; private init; }

    /// <summary>Whether the scope names its sites one by one: a link does not keep these from being changed.</summary>
    internal bool NamesSites => OnlySites is not null || LinkTargets is not null;

    /// <summary>Whether slots are in the scope.</summary>
    internal bool HasSlots => IsAll || OnlySlot is not null;

    /// <summary>One slot and all its sites.</summary>
    /// <param name="slot">A slot of the patcher's layout.</param>
    /// <returns>The scope.</returns>
    public static SiteScope Slot(OpSlot slot)
    {
        ArgumentNullException.ThrowIfNull(slot);
        return new SiteScope(slot.ToString()) { OnlySlot = slot };
    }

    /// <summary>Some sites, and no slot.</summary>
    /// <param name="sites">The sites. One that is named twice counts once.</param>
    /// <returns>The scope.</returns>
    public static SiteScope Sites(params IReadOnlyList<LiveSite> sites)
    {
        ArgumentNullException.ThrowIfNull(sites);
        return new SiteScope("some sites") { OnlySites = sites };
    }

    /// <summary>All sites of some blocks, and no slot.</summary>
    /// <param name="blocks">The blocks.</param>
    /// <returns>The scope.</returns>
    public static SiteScope Blocks(params IReadOnlyList<CodeBlock> blocks)
    {
        ArgumentNullException.ThrowIfNull(blocks);
        return new SiteScope("some blocks") { OnlyBlocks = blocks };
    }

    /// <summary>
    /// The patcher's sites whose own target (<see cref="LivePatcher.Link"/>) lies in some blocks: what must be unlinked before the blocks
    /// are retired. The blocks may be another
    /// arena's. Costs no more than the links that lead there.
    /// </summary>
    /// <param name="blocks">The blocks that links lead into.</param>
    /// <returns>The scope.</returns>
    public static SiteScope LinkedInto(params IReadOnlyList<CodeBlock> blocks)
    {
        ArgumentNullException.ThrowIfNull(blocks);
        return new SiteScope("links into blocks") { LinkTargets = blocks };
    }

    /// <inheritdoc/>
    public override string ToString() => _name;
}

/// <summary>
/// A wish for one site: the target that it alone shall lead to, whatever its slot does. See <see cref="LivePatcher.Link"/>.
/// </summary>
/// <param name="Site">The site.</param>
/// <param name="Target">
/// Run address of the code it shall call, or jump to where its slot is a jump slot; <see langword="null"/> where it shall do again what its
/// slot is switched to.
/// </param>
/// <param name="Destroys">
/// What the target may destroy; <see langword="null"/> for what the slot's convention says. A jump's target is not asked.
/// </param>
public readonly record struct SiteLink(LiveSite Site, VirtualAddress? Target, RegisterSet? Destroys = null)
{
    /// <summary>The target's convention; <see langword="null"/> where it is the slot's.</summary>
    public CallConvention? TargetConvention { get; private init; }

    /// <summary>
    /// Which argument of the target, from 0, is the address it returns to in the code around the site; <see langword="null"/> for none.
    /// </summary>
    public int? CallerArgument => CallerNumber == 0 ? null : CallerNumber - 1;

    internal bool IsPlain => CallerNumber == 0 && TargetConvention is null;

    private byte CallerNumber { get; init; } // one more than the argument: such a link is no larger

    /// <summary>
    /// The same link, whose target has a convention of its own: called through a thunk, as <see cref="Operation.CalledBy"/> says.
    /// </summary>
    /// <param name="convention">The target's convention.</param>
    /// <returns>A new link.</returns>
    public SiteLink CalledBy(CallConvention convention)
    {
        ArgumentNullException.ThrowIfNull(convention);
        return this with { TargetConvention = convention };
    }

    /// <summary>
    /// The same link, whose target is told who called it, as <see cref="Operation.PassingCaller"/> says: a target behind a thunk can ask
    /// for another link of its caller (<see cref="CodeArena.TryFindCaller"/>, <see cref="LivePatcher.RequestLink(SiteLink)"/>).
    /// </summary>
    /// <param name="argument">Which argument of the target's convention, from 0 to 254: one the code around the site does not use.</param>
    /// <returns>A new link.</returns>
    public SiteLink PassingCaller(int argument)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(argument);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(argument, byte.MaxValue);
        return this with { CallerNumber = (byte)(argument + 1) };
    }

    /// <summary>The call of the target, or of what stands in for it.</summary>
    internal Operation CallOf(VirtualAddress target)
    {
        Operation call = Operation.Call(target, destroys: Destroys);
        call = TargetConvention is null ? call : call.CalledBy(TargetConvention);
        return CallerArgument is int argument ? call.PassingCaller(argument) : call;
    }
}
