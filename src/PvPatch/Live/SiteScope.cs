using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>The sites that a change is about.</summary>
public sealed class SiteScope
{
    private SiteScope(ScopeKind kind, string name)
    {
        Kind = kind;
        Name = name;
    }

    /// <summary>Every site of the patcher's layout in its arena, and every slot.</summary>
    public static SiteScope All { get; } = new(ScopeKind.All, "all sites");

    internal ScopeKind Kind { get; }

    internal string Name { get; }

    internal OpSlot? OnlySlot { get; private init; }

    internal IReadOnlyList<LiveSite> OnlySites { get; private init; } = [];

    internal IReadOnlyList<CodeBlock> OnlyBlocks { get; private init; } = [];

    /// <summary>Whether the scope names its sites one by one: a link does not keep these from being changed.</summary>
    internal bool NamesSites => Kind is ScopeKind.Sites or ScopeKind.LinkedInto;

    /// <summary>Whether slots are in the scope.</summary>
    internal bool HasSlots => Kind is ScopeKind.All or ScopeKind.Slot;

    /// <summary>One slot and all its sites.</summary>
    /// <param name="slot">A slot of the patcher's layout.</param>
    /// <returns>The scope.</returns>
    public static SiteScope Slot(OpSlot slot)
    {
        ArgumentNullException.ThrowIfNull(slot);
        return new SiteScope(ScopeKind.Slot, slot.ToString()) { OnlySlot = slot };
    }

    /// <summary>Some sites, and no slot.</summary>
    /// <param name="sites">The sites. One that is named twice counts once.</param>
    /// <returns>The scope.</returns>
    public static SiteScope Sites(params IReadOnlyList<LiveSite> sites)
    {
        ArgumentNullException.ThrowIfNull(sites);
        return new SiteScope(ScopeKind.Sites, "some sites") { OnlySites = sites };
    }

    /// <summary>All sites of some blocks, and no slot.</summary>
    /// <param name="blocks">The blocks.</param>
    /// <returns>The scope.</returns>
    public static SiteScope Blocks(params IReadOnlyList<CodeBlock> blocks)
    {
        ArgumentNullException.ThrowIfNull(blocks);
        return new SiteScope(ScopeKind.Blocks, "some blocks") { OnlyBlocks = blocks };
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
        return new SiteScope(ScopeKind.LinkedInto, "links into blocks") { OnlyBlocks = blocks };
    }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>What a scope is made of.</summary>
internal enum ScopeKind
{
    All,
    Slot,
    Sites,
    Blocks,
    LinkedInto,
}
