using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>Plans for guests of Hyper-V against kernels that were booted as such: their leaves, and the two pages a host fills.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class HyperVBootTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    // What every run of the tests boots.
    private const string Quick = "hyperv";

    // 7.2 sets the page of its clock by a function that is not stopped at, so that its time would stand still.
    public static TheoryData<string, string> Rest => TestedKernels.Cells(
        ["bullseye", "bookworm", "trixie", "sid"], BootConfiguration.HyperV, ("bookworm", Quick), ("sid", "hyperv-tsc"));

    [Fact]
    public void Every_site_of_6_1_holds_the_planned_bytes() => Check("bookworm", Quick);

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Every_site_of_the_matrix_holds_the_planned_bytes(string kernel, string boot) => Check(kernel, boot);

    private void Check(string kernel, string boot)
    {
        BootedKernel booted = TestedKernels.CheckBoot(fixture, output, kernel, boot);

        Assert.True(booted.HypervisorAnswers > 0);
        Assert.Contains("Hypervisor detected: Microsoft Hyper-V", booted.Report.Log, StringComparison.Ordinal);
        Assert.Contains("Booting paravirtualized kernel on Hyper-V", booted.Report.Log, StringComparison.Ordinal);
        bool locks = boot is "hyperv" or "hyperv-2cpu" or "hyperv-ipi" or "hyperv-nopvspin" or "hyperv-tsc";
        Assert.Contains($"Hyper-V: PV spinlocks {(locks ? "enabled" : "disabled")}", booted.Report.Log, StringComparison.Ordinal);
    }
}
