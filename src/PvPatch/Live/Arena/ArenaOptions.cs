namespace PvPatch.Live;

/// <summary>How an arena's memory is protected.</summary>
public enum ArenaProtection
{
    /// <summary>
    /// Two views of the same memory: executors see it read-only and executable, the patcher writes through the other. No page is ever both.
    /// </summary>
    DualMapped,

    /// <summary>
    /// One view that is writable and executable at once: only for systems that allow nothing else, and only where it is asked for by this
    /// name.
    /// </summary>
    WritableAndExecutable,
}

/// <summary>Options of an arena besides its place and size.</summary>
public sealed record ArenaOptions
{
    /// <summary>How the memory is protected.</summary>
    public ArenaProtection Protection { get; init; }

    /// <summary>
    /// Whether an arena that is not in rel32 reach of the address it shall be near to is refused (PV8002). Else it lies as near as there is
    /// room, and what is out of a site's reach is called through its slot. The .NET runtime keeps 2 GiB for itself around its own code, so
    /// that near C# methods there is often room for 16 MiB but not for 64; and behind a call of C# the difference is not to be seen.
    /// </summary>
    public bool MustReach { get; init; }

    /// <summary>
    /// Whether a site inside one 64-byte line may be changed by one store although it crosses 8 bytes (<see cref="SiteClass.Line"/>). No
    /// manual promises it; say so only for processors where you have seen it hold.
    /// </summary>
    public bool TrustCacheLines { get; init; }

    /// <summary>
    /// Whether thunks save vector state (x87, MMX, SSE, AVX, AVX-512, AMX registers and MXCSR) where a target destroys it and a site does
    /// not allow that: with xsave or what else the processor has, in an area of 512 to 11,000 bytes on the executor's stack. Such a call
    /// costs one to two hundred nanoseconds more. Without it an operation whose function would need such a thunk is refused (PV8030);
    /// thunks for registers and flags are made in any case.
    /// </summary>
    public bool SaveVectorState { get; init; } = true;

    internal Platform.LivePlatform? Platform { get; init; }

    /// <summary>Whether 16-byte stores are taken as atomic; the processor's AVX decides where nothing is said.</summary>
    internal bool? Atomic16 { get; init; }

    /// <summary>How vector state is saved; the processor decides where nothing is said.</summary>
    internal Machine.VectorSave? VectorSave { get; init; }
}
