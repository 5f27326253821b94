namespace PvPatch.Paravirt;

/// <summary>What a Hyper-V host lets a guest use: CPUID leaf 0x40000003, register eax. The names are those of the bits that change slots.</summary>
[Flags]
public enum HyperVFeatures : uint
{
    /// <summary>Nothing that changes a slot.</summary>
    None = 0,

    /// <summary>Bit 1: a counter of time in a register.</summary>
    ReferenceCounter = 1u << 1,

    /// <summary>Bit 9: a page that turns the time-stamp counter into that time.</summary>
    ReferenceTsc = 1u << 9,

    /// <summary>Bit 10: a register to wait by until there is something to do. Paravirtual spinlocks need it.</summary>
    GuestIdle = 1u << 10,

    /// <summary>What present hosts offer.</summary>
    Usual = ReferenceCounter | ReferenceTsc | GuestIdle,
}

/// <summary>What a Hyper-V host recommends: CPUID leaf 0x40000004, register eax. The names are those of the bits that change slots.</summary>
[Flags]
public enum HyperVHints : uint
{
    /// <summary>Nothing that changes a slot.</summary>
    None = 0,

    /// <summary>Bit 2: leave flushing the TLBs of other CPUs to the host.</summary>
    RemoteTlbFlush = 1u << 2,

    /// <summary>Bit 10: send interrupts to other CPUs by hypercall. Paravirtual spinlocks wake a CPU that way.</summary>
    ClusterIpi = 1u << 10,

    /// <summary>What present hosts recommend.</summary>
    Usual = RemoteTlbFlush | ClusterIpi,
}

/// <summary>What decides which slots a Hyper-V guest changes. The defaults are a present host.</summary>
public sealed record HyperVOptions
{
    /// <summary>What the guest may use.</summary>
    public HyperVFeatures Features { get; init; } = HyperVFeatures.Usual;

    /// <summary>What the host recommends.</summary>
    public HyperVHints Hints { get; init; } = HyperVHints.Usual;

    /// <summary>Whether the kernel was started with <c>hv_nopvspin</c>. The <c>nopvspin</c> of other guests is not looked at on Hyper-V.</summary>
    public bool NoPvSpin { get; init; }
}
