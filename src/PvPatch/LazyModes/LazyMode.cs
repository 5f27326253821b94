namespace PvPatch.LazyModes;

/// <summary>What a CPU may put off: the lazy modes of Linux's paravirt operations. A CPU is in one of them at a time.</summary>
/// <remarks>The values are bits, so that a call can name the modes in which it may be put off.</remarks>
[Flags]
public enum LazyMode
{
    /// <summary>Nothing is put off: every call is made at once.</summary>
    None = 0,

    /// <summary>Updates of page tables are put off.</summary>
    Mmu = 1,

    /// <summary>Updates of CPU state are put off: the mode of a context switch.</summary>
    Cpu = 2,
}

/// <summary>Why queued calls are made.</summary>
public enum FlushReason
{
    /// <summary>The host asked for it (<see cref="LazyCpu{TCall}.Flush"/>).</summary>
    Requested,

    /// <summary>A call may not be put off in the mode the CPU is in.</summary>
    Immediate,

    /// <summary>The queue holds as many calls as it may.</summary>
    Full,

    /// <summary>The arguments of the next call do not fit beside those of the calls queued.</summary>
    Arguments,

    /// <summary>As many functions wait for the flush as may.</summary>
    Callbacks,

    /// <summary>The mode is left.</summary>
    Leave,

    /// <summary>An operation observes state that queued calls change.</summary>
    Observed,

    /// <summary>A context switch begins or ends.</summary>
    ContextSwitch,
}
