namespace PvPatch.Paravirt;

/// <summary>What a KVM host offers: CPUID leaf 0x40000001, register eax. The names are those of the bits that change slots, with a few that go with them.</summary>
[Flags]
public enum KvmFeatures : uint
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Bit 0: a clock, by the old register numbers.</summary>
    ClockSource = 1u << 0,

    /// <summary>Bit 1: no delay is needed after I/O.</summary>
    NopIoDelay = 1u << 1,

    /// <summary>Bit 2: page-table updates by hypercall (2.6.26 to 2.6.3x).</summary>
    MmuOp = 1u << 2,

    /// <summary>Bit 3: a clock, by the new register numbers.</summary>
    ClockSource2 = 1u << 3,

    /// <summary>Bit 5: stolen time is reported.</summary>
    StealTime = 1u << 5,

    /// <summary>Bit 7: a halted CPU can be woken by another (paravirtual spinlocks).</summary>
    PvUnhalt = 1u << 7,

    /// <summary>Bit 9: flushing the TLB of a CPU that does not run can be left to the host.</summary>
    PvTlbFlush = 1u << 9,

    /// <summary>Bit 17: live migration of encrypted guests (the guest reports which pages are encrypted).</summary>
    MigrationControl = 1u << 17,

    /// <summary>Bit 24: the clock is stable across CPUs.</summary>
    ClockSourceStable = 1u << 24,

    /// <summary>What present hosts offer to an ordinary guest, as far as slots are concerned.</summary>
    Usual = ClockSource | NopIoDelay | ClockSource2 | StealTime | PvUnhalt | PvTlbFlush | ClockSourceStable,

    /// <summary>What of that QEMU (10.1) lets a TDX guest have.</summary>
    UsualTdx = NopIoDelay | PvUnhalt | PvTlbFlush,
}

/// <summary>What decides which slots a KVM guest changes. The defaults are a guest with several CPUs on a present host.</summary>
public sealed record KvmOptions
{
    /// <summary>What the host offers.</summary>
    public KvmFeatures Features { get; init; } = KvmFeatures.Usual;

    /// <summary>Whether the host promises CPUs of their own (CPUID 0x40000001 edx, bit 0): neither paravirtual locks nor TLB flushes then.</summary>
    public bool RealtimeHint { get; init; }

    /// <summary>Whether more than one CPU is possible.</summary>
    public bool MultipleCpus { get; init; } = true;

    /// <summary>Whether the kernel was started with <c>nopvspin</c>.</summary>
    public bool NoPvSpin { get; init; }

    /// <summary>Whether the CPU has MWAIT: guests then rather wait themselves, and do not leave TLB flushes to the host.</summary>
    public bool HasMwait { get; init; }

    /// <summary>Whether the guest's memory is encrypted (SEV).</summary>
    public bool EncryptedMemory { get; init; }
}
