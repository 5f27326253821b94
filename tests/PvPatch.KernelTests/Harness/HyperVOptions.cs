namespace PvPatch.KernelTests.Harness;

/// <summary>What a guest of Hyper-V finds in its leaves.</summary>
public sealed record HyperVOptions
{
    /// <summary>
    /// EAX of leaf 0x40000003. Hypercalls (0x20) and the register with a processor's number (0x40), without which a kernel does not take
    /// itself for a guest, are added.
    /// </summary>
    public uint Features { get; init; }

    /// <summary>EAX of leaf 0x40000004.</summary>
    public uint Hints { get; init; }
}
