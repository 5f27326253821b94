using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>
/// Plans for trust domains against kernels that were booted as such: the leaf, and an answer to each TDCALL. 5.10 and 6.1 of Debian have no
/// TDX.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class TdxBootTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    public static TheoryData<string, string> Rest => TestedKernels.Cells(["trixie", "sid"], BootConfiguration.Tdx, ("trixie", "tdx"));

    [Fact]
    public void Every_site_of_6_12_holds_the_planned_bytes() => Check("trixie", "tdx");

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Every_site_of_the_matrix_holds_the_planned_bytes(string kernel, string boot) => Check(kernel, boot);

    private void Check(string kernel, string boot)
    {
        BootedKernel booted = TestedKernels.CheckBoot(fixture, output, kernel, boot);

        Assert.True(booted.HypervisorAnswers > 0);
        Assert.Contains("tdx: Guest detected", booted.Report.Log, StringComparison.Ordinal);
        Assert.Contains("using TDX aware idle routine", booted.Report.Log, StringComparison.Ordinal);
        Assert.Equal(boot != "tdx", booted.Report.Log.Contains("Booting paravirtualized kernel on KVM", StringComparison.Ordinal));
    }
}
