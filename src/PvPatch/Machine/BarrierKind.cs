namespace PvPatch.Machine;

/// <summary>What makes the other cores drop what they have already fetched and decoded.</summary>
public enum BarrierKind : byte
{
    /// <summary>Nothing does. Live switching is refused.</summary>
    None,

    /// <summary>
    /// An interrupt on every core that runs this process: <c>membarrier</c> without core serialization, or
    /// <see cref="Interlocked.MemoryBarrierProcessWide"/>. A return from an interrupt serializes, but nobody promises it for these calls.
    /// </summary>
    Weak,

    /// <summary>
    /// <c>membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE)</c>, Linux 4.16 and later: every core that runs this process has executed
    /// a serializing instruction before the call returns, the caller's included.
    /// </summary>
    SyncCore,
}
