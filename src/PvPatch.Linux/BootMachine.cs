using PvPatch.Linux.Text;
using PvPatch.Machine;
using PvPatch.Paravirt;

namespace PvPatch.Linux;

/// <summary>
/// The machine that a kernel boots on, as far as its paravirt sites depend on it. The defaults are one CPU of bare hardware.
/// </summary>
public sealed record BootMachine
{
    /// <summary>The name of the backend: one of <see cref="KernelBackends.Names"/>.</summary>
    public string Backend { get; init; } = NativeBackend.Name;

    /// <summary>The number of possible CPUs. Paravirtual spinlocks need two, but for those of Hyper-V.</summary>
    public int Cpus { get; init; } = 1;

    /// <summary>
    /// Whether the kernel is started with <c>nopvspin</c>; on Hyper-V with <c>hv_nopvspin</c>, as the other word is not looked at there.
    /// </summary>
    public bool NoPvSpin { get; init; }

    /// <summary>
    /// Features of a KVM host: CPUID 0x40000001, eax. <see langword="null"/>: what present hosts offer,
    /// <see cref="Paravirt.KvmFeatures.Usual"/>, and to a TDX guest <see cref="Paravirt.KvmFeatures.UsualTdx"/>. A TDX guest on another
    /// host has <see cref="Paravirt.KvmFeatures.None"/>.
    /// </summary>
    public KvmFeatures? KvmFeatures { get; init; }

    internal KvmFeatures OfferedKvmFeatures =>
        KvmFeatures ?? (Backend == TdxBackend.Name ? Paravirt.KvmFeatures.UsualTdx : Paravirt.KvmFeatures.Usual);

    /// <summary>Features of a Hyper-V host: CPUID 0x40000003, eax.</summary>
    public HyperVFeatures HyperVFeatures { get; init; } = HyperVFeatures.Usual;

    /// <summary>Recommendations of a Hyper-V host: CPUID 0x40000004, eax.</summary>
    public HyperVHints HyperVHints { get; init; } = HyperVHints.Usual;

    /// <summary>Clock of a VMware host; kernels to 5.10 have slots for it.</summary>
    public VmwareClock VmwareClock { get; init; } = VmwareClock.StolenTime;

    /// <summary>Whether the CPU has MWAIT (a KVM guest then leaves TLB flushes alone).</summary>
    public bool HasMwait { get; init; }

    /// <summary>Whether the CPU has LKGS.</summary>
    public bool HasLkgs { get; init; }

    /// <summary>
    /// The nops of the CPU, for kernels that choose by it (to 5.12): <see cref="NopStyle.P6"/> for Intel, for AMD from family 16 on and for
    /// Hygon, <see cref="NopStyle.K8"/> for older AMD and others. Later kernels have one table of nops and ignore this.
    /// </summary>
    public NopStyle Nops { get; init; } = NopStyle.P6;

    /// <summary>Answers of a VMI hypervisor's ROM, for that backend; <see langword="null"/> for a ROM without any of the calls.</summary>
    public VmiOptions? Vmi { get; init; }

    /// <summary>Slots whose content differs from the backend's.</summary>
    public SlotOverrides? Overrides { get; init; }
}
