using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.KernelTests;

/// <summary>The plan for a kernel's file against the memory of the same kernel after it booted: the booted kernel is right.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class BootedSitesTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    // The quick part, in every run of the tests.
    private static readonly HashSet<(string Kernel, string Boot)> s_quick = [
        ("bookworm", "native"), ("trixie", "native"), ("bookworm", "xen-1cpu")];

    public static TheoryData<string, string> Quick => Cells(static cell => s_quick.Contains(cell));

    public static TheoryData<string, string> Rest => Cells(static cell => !s_quick.Contains(cell));

    [Theory]
    [MemberData(nameof(Quick))]
    public void Every_site_holds_the_planned_bytes(string kernel, string boot) => Check(kernel, boot);

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Every_site_of_the_matrix_holds_the_planned_bytes(string kernel, string boot) => Check(kernel, boot);

    [Fact]
    public void A_wrong_rule_is_caught()
    {
        BootedKernel booted = fixture.Boot(Kernels.Bookworm);
        KernelImage image = TestedKernels.Load(booted.ImagePath);

        // Without the alternatives laid over: what 6.1's paravirt patcher writes is not what stands there in the end.
        PatchPlan callsOnly = new PatchPlanner().Plan(image.Code, image.Sites, image.Native, new PlanOptions { Rules = image.Era.Rules });

        // The rules of 4.20: short forms by slot, but other nops.
        PatchPlan otherEra = new PatchPlanner().Plan(
            image.Code, image.Sites, image.Native, new PlanOptions { Rules = LinuxRules.Linux420, Nops = NopStyle.K8 });

        Assert.True(TestedKernels.Compare(callsOnly, booted.AfterPatching).Wrong.Count > 1000);
        Assert.True(TestedKernels.Compare(otherEra, booted.AfterPatching).Wrong.Count > 1000);
        Assert.True(
            TestedKernels.Compare(TestedKernels.Plan(image, new BootMachine { Backend = "xen" }), booted.AfterPatching).Wrong.Count > 1000);
        Assert.Empty(TestedKernels.Compare(TestedKernels.Plan(image, new BootMachine()), booted.AfterPatching).Wrong);
    }

    private static TheoryData<string, string> Cells(Func<(string Kernel, string Boot), bool> wanted)
    {
        var cells = new TheoryData<string, string>();
        foreach (string kernel in (string[])["bullseye", "bookworm", "trixie", "sid"])
        {
            foreach (BootConfiguration boot in BootConfiguration.All)
            {
                if (wanted((kernel, boot.Name)))
                {
                    cells.Add(kernel, boot.Name);
                }
            }
        }

        if (wanted(("bookworm-i386", "native")))
        {
            cells.Add("bookworm-i386", "native");
        }

        foreach (string flavour in (string[])["bookworm-cloud", "bookworm-rt", "trixie-cloud"])
        {
            if (wanted((flavour, "native")))
            {
                cells.Add(flavour, "native");
            }
        }

        return cells;
    }

    private void Check(string kernel, string boot) => TestedKernels.CheckBoot(fixture, output, kernel, boot);
}
