namespace PvPatch.KernelTests.Harness;

/// <summary>A kernel as the PV dom0 of a real Xen hypervisor. Two equal values mean the same boot.</summary>
public sealed record XenOptions
{
    /// <summary>Processors of dom0, and of the machine. From two on, Linux uses Xen's spinlocks (unless nopvspin).</summary>
    public int Dom0Processors { get; init; } = 1;

    /// <summary>Words added to the hypervisor's command line; dom0's are <see cref="MachineOptions.Append"/>.</summary>
    public string Append { get; init; } = string.Empty;

    /// <summary>The metapackage whose hypervisor is used.</summary>
    public PackageRequest Package { get; init; } = new("bookworm", "xen-system-amd64");
}
