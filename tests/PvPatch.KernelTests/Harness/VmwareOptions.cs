namespace PvPatch.KernelTests.Harness;

/// <summary>What a guest of VMware gets told by the backdoor.</summary>
public sealed record VmwareOptions
{
    /// <summary>How fast the time-stamp counter runs; 0 leaves the guest to QEMU's own backdoor, which does not know.</summary>
    public uint Hertz { get; init; }

    /// <summary>Whether there is a page of stolen time.</summary>
    public bool StolenTime { get; init; }
}
