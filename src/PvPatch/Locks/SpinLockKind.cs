namespace PvPatch.Locks;

/// <summary>
/// The form of a spinlock: one aligned 8-byte word, zero where it is free for the first time. Locks of one kind have one form under every
/// mode, so the mode may change while they are held and waited for; the kind may not.
/// </summary>
/// <remarks>
/// <code>
///            7      4 3      0
/// Ticket    |  head  | tail |w|   tickets go up by 2; w, bit 0 of the tail: somebody waits in the host
/// Byte      |       0       |wh|  h: held; w: somebody waits in the host
/// Queued    | last node     |b|   the last one's node, shifted left by 8; b: 0 free, 1 held, 2 held and the first one waits in the host
/// </code>
/// </remarks>
public enum SpinLockKind
{
    /// <summary>Each takes a number and waits until it is served: in the order of arrival.</summary>
    Ticket,

    /// <summary>Whoever sees it free and is the first to say so: in no order. The cheapest where nobody contends.</summary>
    Byte,

    /// <summary>Each waits at a node of its own on its stack, and only the first looks at the lock: in the order of arrival.</summary>
    Queued,
}

/// <summary>What becomes of those who wait for a spinlock.</summary>
public enum SpinLockMode
{
    /// <summary>They spin. The unlock is one instruction in its site.</summary>
    Native,

    /// <summary>
    /// They spin for a while, then wait in the host (a hypervisor's halt, a parked thread) until an unlock kicks them. The unlock is a
    /// call.
    /// </summary>
    Paravirtual,
}
