using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>
/// Plans for guests of VMware against kernels that were booted as such: its leaves, and QEMU's backdoor with answers about clocks.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class VmwareBootTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    public static TheoryData<string, string> Rest =>
        TestedKernels.Cells(["bullseye", "bookworm", "trixie", "sid"], BootConfiguration.Vmware, ("bookworm", "vmware"));

    [Fact]
    public void Every_site_of_6_1_holds_the_planned_bytes() => Check("bookworm", "vmware");

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Every_site_of_the_matrix_holds_the_planned_bytes(string kernel, string boot) => Check(kernel, boot);

    private void Check(string kernel, string boot)
    {
        BootedKernel booted = TestedKernels.CheckBoot(fixture, output, kernel, boot);

        Assert.True(booted.HypervisorAnswers > 0);
        Assert.Contains("Hypervisor detected: VMware", booted.Report.Log, StringComparison.Ordinal);
        Assert.Contains("Booting paravirtualized kernel on VMware hypervisor", booted.Report.Log, StringComparison.Ordinal);
        Assert.Equal(
            boot != "vmware-none", booted.Report.Log.Contains("TSC freq read from hypervisor : 2500.000 MHz", StringComparison.Ordinal));
        Assert.Equal(boot == "vmware", booted.Report.Log.Contains("vmware-stealtime: cpu 0", StringComparison.Ordinal));
    }
}
