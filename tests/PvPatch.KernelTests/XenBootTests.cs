using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>The harness under Xen: a real hypervisor, and the memory of the kernel that is its dom0.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class XenBootTests(BootedKernelFixture fixture)
{
    [SkippableFact]
    public void Dom0_runs_under_a_real_xen()
    {
        BootedKernel kernel = fixture.Boot(Kernels.Bookworm, new MachineOptions { Xen = new XenOptions() });
        System.Console.Error.WriteLine(kernel.ConsoleText);
        Assert.Contains("Xen version: 4.", kernel.Report.Log, StringComparison.Ordinal);
    }
}
