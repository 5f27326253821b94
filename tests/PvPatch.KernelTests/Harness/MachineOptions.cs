namespace PvPatch.KernelTests.Harness;

/// <summary>How a virtual machine is set up. Two equal values mean the same boot.</summary>
public sealed record MachineOptions
{
    /// <summary>The common setup: one processor with all features TCG has.</summary>
    public static MachineOptions Default { get; } = new();

    /// <summary>QEMU's -cpu, for example "max" (an AMD of family 15) or "Skylake-Client-v4" (an Intel).</summary>
    public string Cpu { get; init; } = "max";

    /// <summary>
    /// QEMU's -smp, for example "1,maxcpus=2" so that the kernel expects a second processor. Under Xen the number is
    /// <see cref="XenOptions.Dom0Processors"/> and this one stays as it is.
    /// </summary>
    public string Processors { get; init; } = "1";

    /// <summary>Guest memory in MiB; under Xen that of dom0, the hypervisor's comes on top.</summary>
    public int MemoryMiB { get; init; } = 768;

    /// <summary>Words added to the kernel's command line.</summary>
    public string Append { get; init; } = string.Empty;

    /// <summary>Debian architecture of the kernel, which decides user space and address layout: amd64 or i386.</summary>
    public string Architecture { get; init; } = "amd64";

    /// <summary>Boots the kernel as PV dom0 of Xen; null boots it on the machine itself.</summary>
    public XenOptions? Xen { get; init; }

    /// <summary>
    /// Makes the machine look like KVM with these feature bits (EAX of CPUID leaf 0x40000001); null leaves it alone.
    /// Bits that need a hypervisor's help beyond CPUID, such as the clock (0x1, 0x8), end in a crash of the guest.
    /// </summary>
    public uint? KvmFeatures { get; init; }

    /// <summary>Makes the machine look like Hyper-V; null leaves it alone.</summary>
    public HyperVOptions? HyperV { get; init; }

    /// <summary>Makes the machine look like VMware; null leaves it alone.</summary>
    public VmwareOptions? Vmware { get; init; }

    /// <summary>Makes the machine look like a trust domain of Intel's TDX, on KVM if there are <see cref="KvmFeatures"/>.</summary>
    public bool Tdx { get; init; }

    /// <summary>
    /// Features that the processor is said to have besides those QEMU translates: bits of EDX of CPUID leaf 7. What the kernel writes to
    /// registers for them, QEMU ignores.
    /// </summary>
    public uint MoreFeatures { get; init; }

    /// <summary>Whether the kernel is told of something by QEMU's gdbstub.</summary>
    internal bool AnswersLeaves => KvmFeatures is not null || HyperV is not null || Vmware is not null || Tdx || MoreFeatures != 0;

    /// <summary>Lets the kernel choose its place (KASLR). All addresses are then those of this boot, not link addresses.</summary>
    public bool Kaslr { get; init; }

    /// <summary>Whether and how ELF cores are kept; each is as large as the machine's memory.</summary>
    public CoreForm Core { get; init; }

    /// <summary>
    /// Lets the kernel's module qemu_fw_cfg tell QEMU where its VMCOREINFO note is; cores taken afterwards have it.
    /// </summary>
    public bool VmCoreInfo { get; init; }

    /// <summary>Longest wait for one stop of the boot.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>
    /// What is subtracted from a link address to get the physical one, for a kernel that was not moved (nokaslr,
    /// or an ELF started by itself): __START_KERNEL_map, and on i386 PAGE_OFFSET at the usual 3:1 split.
    /// </summary>
    public ulong ImageOffset => Architecture == "i386" ? 0xc000_0000 : 0xffff_ffff_8000_0000;

    /// <summary>Whether the kernel lies in one piece at the physical address its link address says.</summary>
    internal bool IsAtLinkAddress => Xen is null && !Kaslr;

    /// <summary>Refuses what does not go together.</summary>
    /// <exception cref="ArgumentException">Two of the options contradict each other.</exception>
    internal void Check()
    {
        if (Architecture != "amd64" && (Xen is not null || AnswersLeaves || Kaslr))
        {
            throw new ArgumentException($"Xen, other hypervisors and KASLR are for amd64 kernels, not {Architecture}.");
        }

        if (Xen is not null && (AnswersLeaves || Kaslr || Processors != "1" || Xen.Dom0Processors < 1))
        {
            throw new ArgumentException(
                "Under Xen there is neither another hypervisor nor KASLR, and the processors are counted by XenOptions.Dom0Processors.");
        }

        if ((KvmFeatures is not null ? 1 : 0) + (HyperV is not null ? 1 : 0) + (Vmware is not null ? 1 : 0) > 1)
        {
            throw new ArgumentException("A guest is told of one hypervisor.");
        }

        if (AnswersLeaves && Kaslr)
        {
            throw new ArgumentException("CPUID is answered at a known address; with KASLR there is none.");
        }
    }
}
