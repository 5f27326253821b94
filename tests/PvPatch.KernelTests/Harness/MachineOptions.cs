namespace PvPatch.KernelTests.Harness;

/// <summary>How a virtual machine is set up. Two equal values mean the same boot.</summary>
public sealed record MachineOptions
{
    /// <summary>The common setup: one processor with all features TCG has.</summary>
    public static MachineOptions Default { get; } = new();

    /// <summary>QEMU's -cpu, for example "max" or "Skylake-Client-v4".</summary>
    public string Cpu { get; init; } = "max";

    /// <summary>QEMU's -smp, for example "1,maxcpus=2" so that the kernel expects a second processor.</summary>
    public string Processors { get; init; } = "1";

    /// <summary>Guest memory in MiB.</summary>
    public int MemoryMiB { get; init; } = 768;

    /// <summary>Words added to the kernel's command line.</summary>
    public string Append { get; init; } = string.Empty;

    /// <summary>Debian architecture of the kernel, which decides user space and address layout: amd64 or i386.</summary>
    public string Architecture { get; init; } = "amd64";

    /// <summary>Longest wait for one stop of the boot.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>
    /// What is subtracted from a link address to get the physical one, for a kernel that was not moved (nokaslr,
    /// or an ELF started by itself): __START_KERNEL_map, and on i386 PAGE_OFFSET at the usual 3:1 split.
    /// </summary>
    public ulong ImageOffset => Architecture == "i386" ? 0xc000_0000 : 0xffff_ffff_8000_0000;
}
