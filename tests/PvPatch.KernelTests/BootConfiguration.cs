using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Machine;
using PvPatch.Paravirt;
using HyperVOptions = PvPatch.KernelTests.Harness.HyperVOptions;
using VmwareOptions = PvPatch.KernelTests.Harness.VmwareOptions;
using XenOptions = PvPatch.KernelTests.Harness.XenOptions;

namespace PvPatch.KernelTests;

/// <summary>One column of the matrix: how a kernel is booted, and what is said of that boot to the planner.</summary>
/// <param name="Name">The column's name.</param>
/// <param name="Options">How the machine is started.</param>
/// <param name="Machine">What the planner is told.</param>
public sealed record BootConfiguration(string Name, MachineOptions Options, BootMachine Machine)
{
    private const uint SpecCtrl = 1u << 26; // IBRS and IBPB: then IBRS is what an affected kernel chooses, and no retpolines
    private const uint KvmFeatureBits = 0x22a2; // NOP_IO_DELAY, STEAL_TIME, PV_UNHALT, PV_TLB_FLUSH, PV_SCHED_YIELD

    // QEMU's "max" is an AMD processor of family 15, for which 5.10 takes K8 nops; an Intel one gets P6. Later kernels do not look.
    private static readonly BootMachine s_amd = new() { Nops = NopStyle.K8 };

    private static readonly MachineOptions s_two = new() { Cpu = "max,-monitor", Processors = "1,maxcpus=2", Append = "noreplace-smp" };

    /// <summary>All columns.</summary>
    public static IReadOnlyList<BootConfiguration> All { get; } =
    [
        new("native", MachineOptions.Default, s_amd),
        new("native-intel", new MachineOptions { Cpu = "Skylake-Client-v4", Append = "noreplace-smp" },
            new BootMachine { Nops = NopStyle.P6 }),
        new("native-nomitigations", new MachineOptions { Append = "mitigations=off" }, s_amd),
        new("kvm-0x0", new MachineOptions { KvmFeatures = 0 }, s_amd with { Backend = "kvm", KvmFeatures = KvmFeatures.None }),
        new("kvm-0x22a2-2cpu", s_two with { KvmFeatures = KvmFeatureBits },
            s_amd with { Backend = "kvm", KvmFeatures = (KvmFeatures)KvmFeatureBits, Cpus = 2 }),
        new("xen-1cpu", new MachineOptions { Xen = new XenOptions() }, s_amd with { Backend = "xen" }),
        new("xen-2cpu", new MachineOptions { Xen = new XenOptions { Dom0Processors = 2 } }, s_amd with { Backend = "xen", Cpus = 2 }),
        new("xen-2cpu-nopvspin", new MachineOptions { Xen = new XenOptions { Dom0Processors = 2 }, Append = "nopvspin" },
            s_amd with { Backend = "xen", Cpus = 2, NoPvSpin = true }),
    ];

    /// <summary>Columns beside the matrix: guests of Hyper-V.</summary>
    public static IReadOnlyList<BootConfiguration> HyperV { get; } =
    [
        HyperVGuest("hyperv", HyperVFeatures.GuestIdle, HyperVHints.Usual),
        HyperVGuest("hyperv-2cpu", HyperVFeatures.GuestIdle, HyperVHints.Usual, s_two.Append, cpus: 2),
        HyperVGuest("hyperv-0x0", HyperVFeatures.None, HyperVHints.None),
        HyperVGuest("hyperv-noidle", HyperVFeatures.None, HyperVHints.Usual),
        HyperVGuest("hyperv-flush", HyperVFeatures.GuestIdle, HyperVHints.RemoteTlbFlush),
        HyperVGuest("hyperv-ipi", HyperVFeatures.GuestIdle, HyperVHints.ClusterIpi),
        HyperVGuest("hyperv-hv_nopvspin", HyperVFeatures.GuestIdle, HyperVHints.Usual, "hv_nopvspin", noPvSpin: true),

        // Not the word that Hyper-V's guests look at.
        HyperVGuest("hyperv-nopvspin", HyperVFeatures.GuestIdle, HyperVHints.Usual, "nopvspin"),
        HyperVGuest("hyperv-tsc", HyperVFeatures.Usual, HyperVHints.Usual),
    ];

    /// <summary>Columns beside the matrix: guests of VMware.</summary>
    public static IReadOnlyList<BootConfiguration> Vmware { get; } =
    [
        new("vmware-none", new MachineOptions { Vmware = new VmwareOptions() },
            s_amd with { Backend = "vmware", VmwareClock = VmwareClock.None }),
        new("vmware-frequency", new MachineOptions { Vmware = new VmwareOptions { Hertz = 2_500_000_000 } },
            s_amd with { Backend = "vmware", VmwareClock = VmwareClock.Frequency }),
        new("vmware", new MachineOptions { Vmware = new VmwareOptions { Hertz = 2_500_000_000, StolenTime = true } },
            s_amd with { Backend = "vmware" }),
    ];

    /// <summary>Columns beside the matrix: trust domains, on no hypervisor that is known and on KVM.</summary>
    public static IReadOnlyList<BootConfiguration> Tdx { get; } =
    [
        new("tdx", new MachineOptions { Tdx = true }, s_amd with { Backend = "tdx", KvmFeatures = KvmFeatures.None }),
        new("tdx-kvm-2cpu", s_two with { Tdx = true, KvmFeatures = (uint)KvmFeatures.UsualTdx }, s_amd with { Backend = "tdx", Cpus = 2 }),
    ];

    /// <summary>Columns beside the matrix: what processors and command lines make of indirect branches and returns.</summary>
    public static IReadOnlyList<BootConfiguration> Mitigations { get; } =
    [
        new("intel-ibrs", new MachineOptions { Cpu = "Skylake-Client-v4", MoreFeatures = SpecCtrl }, new BootMachine()),
        new("intel-stuff", new MachineOptions { Cpu = "Skylake-Client-v4", Append = "retbleed=stuff" }, new BootMachine()),
        new("lfence", new MachineOptions { Append = "spectre_v2=retpoline,lfence" }, s_amd),
        new("zen2", new MachineOptions { Cpu = "EPYC-Rome" }, new BootMachine()),
    ];

    /// <summary>The column of a name.</summary>
    public static BootConfiguration Named(string name) =>
        All.Concat(HyperV).Concat(Vmware).Concat(Tdx).Concat(Mitigations).Single(c => c.Name == name);

    private static BootConfiguration HyperVGuest(
        string name, HyperVFeatures features, HyperVHints hints, string append = "", int cpus = 1, bool noPvSpin = false) =>
        new(
            name,
            new MachineOptions
            {
                Processors = cpus == 1 ? "1" : $"1,maxcpus={cpus}",
                Append = append,
                HyperV = new HyperVOptions { Features = (uint)features, Hints = (uint)hints },
            },
            s_amd with { Backend = "hyperv", HyperVFeatures = features, HyperVHints = hints, Cpus = cpus, NoPvSpin = noPvSpin });
}
