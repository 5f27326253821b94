namespace PvPatch.Live.Platform;

/// <summary>What an arena asks of the system.</summary>
/// <param name="Near">The address to be near to; <see langword="null"/> where it does not matter.</param>
/// <param name="MustReach">Whether every byte must be in rel32 reach of it, or memory farther away is better than none.</param>
/// <param name="Size">Bytes, a multiple of <see cref="LivePlatform.Granularity"/>.</param>
/// <param name="WritableAndExecutable">One mapping that is both, because the host asked for it by name.</param>
internal readonly record struct MapRequest(VirtualAddress? Near, bool MustReach, long Size, bool WritableAndExecutable);
