namespace PvPatch.Linux.Dumps;

/// <summary>What a reader of one format found in a dump: the memory by address, and what the dump says of its machine.</summary>
/// <param name="Kind">The format.</param>
/// <param name="Source">The bytes that the segments of the spaces are offsets in; it owns what is below it.</param>
internal sealed record DumpContent(MemoryFileKind Kind, MemorySource Source)
{
    /// <summary>Memory by the kernel's virtual addresses.</summary>
    public required MemorySpace Virtual { get; init; }

    /// <summary>Memory by physical addresses.</summary>
    public required MemorySpace Physical { get; init; }

    /// <summary>The bitness of the machine; <see langword="null"/> where the format does not say it.</summary>
    public int? Bitness { get; init; }

    /// <summary>The kernel's own description; <see langword="null"/> where the dump has none.</summary>
    public VmCoreInfo? Notes { get; init; }

    /// <summary>Whether the format was read out of makedumpfile's flattened form.</summary>
    public bool IsFlattened { get; init; }
}
