namespace PvPatch.Live;

/// <summary>Where a live site is in its life.</summary>
public enum LiveSiteState : byte
{
    /// <summary>It holds the bytes it was emitted with.</summary>
    Original,

    /// <summary>It holds a backend's body, or stays indirect for one.</summary>
    Bound,

    /// <summary>Its block was retired: it is not written any more.</summary>
    Retired,

    /// <summary>A batch failed and could not be taken back here: what it holds runs, but is not what was asked for.</summary>
    Faulted,

    /// <summary>It leads to a target of its own, whatever its slot is switched to.</summary>
    Linked,
}

/// <summary>What form a site's bytes have.</summary>
public enum LiveForm : byte
{
    /// <summary>The emitted call or jump through the slot.</summary>
    Original,

    /// <summary>One instruction that does the operation: a nop, a move, a body.</summary>
    OneInstruction,

    /// <summary>A direct call that ends where the site ends.</summary>
    Call,

    /// <summary>A direct jump out of the code.</summary>
    Jump,

    /// <summary>A jump to an immutable block that holds the body's instructions and jumps back.</summary>
    Island,

    /// <summary>Several instructions in the site itself. Put there at quiescence only; leaving it needs a grace period.</summary>
    InPlace,
}
