using PvPatch.Backends;
using PvPatch.Encoding;
using PvPatch.KernelTests.Harness;
using PvPatch.Linux.Kernel;
using XenOptions = PvPatch.KernelTests.Harness.XenOptions;

namespace PvPatch.KernelTests;

/// <summary>One column of the matrix: how a kernel is booted, and what is said of that boot to the planner.</summary>
/// <param name="Name">The column's name.</param>
/// <param name="Options">How the machine is started.</param>
/// <param name="Machine">What the planner is told.</param>
public sealed record BootConfiguration(string Name, MachineOptions Options, BootMachine Machine)
{
    private const uint KvmFeatureBits = 0x22a2; // NOP_IO_DELAY, STEAL_TIME, PV_UNHALT, PV_TLB_FLUSH, PV_SCHED_YIELD

    // QEMU's "max" is an AMD processor of family 15, for which 5.10 takes K8 nops; an Intel one gets P6. Later kernels do not look.
    private static readonly BootMachine s_amd = new() { Nops = NopStyle.K8 };

    private static readonly MachineOptions s_two = new() { Cpu = "max,-monitor", Processors = "1,maxcpus=2", Append = "noreplace-smp" };

    /// <summary>All columns.</summary>
    public static IReadOnlyList<BootConfiguration> All { get; } =
    [
        new("native", MachineOptions.Default, s_amd),
        new("native-intel", new MachineOptions { Cpu = "Skylake-Client-v4", Append = "noreplace-smp" }, new BootMachine { Nops = NopStyle.P6 }),
        new("native-nomitigations", new MachineOptions { Append = "mitigations=off" }, s_amd),
        new("kvm-0x0", new MachineOptions { KvmFeatures = 0 }, s_amd with { Backend = "kvm", KvmFeatures = KvmFeatures.None }),
        new("kvm-0x22a2-2cpu", s_two with { KvmFeatures = KvmFeatureBits }, s_amd with { Backend = "kvm", KvmFeatures = (KvmFeatures)KvmFeatureBits, Cpus = 2 }),
        new("xen-1cpu", new MachineOptions { Xen = new XenOptions() }, s_amd with { Backend = "xen" }),
        new("xen-2cpu", new MachineOptions { Xen = new XenOptions { Dom0Processors = 2 } }, s_amd with { Backend = "xen", Cpus = 2 }),
        new("xen-2cpu-nopvspin", new MachineOptions { Xen = new XenOptions { Dom0Processors = 2 }, Append = "nopvspin" }, s_amd with { Backend = "xen", Cpus = 2, NoPvSpin = true }),
    ];

    /// <summary>The column of a name.</summary>
    public static BootConfiguration Named(string name) => All.Single(c => c.Name == name);
}
