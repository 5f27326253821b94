using PvPatch.KernelTests.Harness;
using PvPatch.Linux.Kernel;
using PvPatch.Planning;
using PvPatch.Plans;
using Xunit.Abstractions;

namespace PvPatch.KernelTests;

/// <summary>The plan for a kernel's file against the memory of the same kernel after it booted natively: the booted kernel is right.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class NativeBootTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    public static TheoryData<string> KernelNames => ["bullseye", "bookworm", "trixie", "sid", "bookworm-i386"];

    [SkippableTheory]
    [MemberData(nameof(KernelNames))]
    public void Every_site_holds_the_planned_bytes_after_a_native_boot(string kernel)
    {
        BootedKernel booted = fixture.Boot(Named(kernel));
        KernelImage image = Load(booted);

        // QEMU's "max" is an AMD processor of family 15: 5.10 then chooses K8 nops; later kernels have one table.
        PatchPlan plan = Plan(image, new BootMachine { Nops = PvPatch.Encoding.NopStyle.K8 });

        (int matched, List<string> wrong) = Compare(plan, booted.AfterPatching);

        output.WriteLine($"{booted.Package?.Package} {booted.Package?.Version}: {matched} of {plan.Count} sites equal; {plan.Summary}");
        Assert.Empty(wrong);
        Assert.Equal(image.Sites.Count, matched);
        Assert.True(matched > 200, $"only {matched} sites: is this the kernel's table?");
    }

    [SkippableFact]
    public void A_wrong_rule_is_caught()
    {
        BootedKernel booted = fixture.Boot(Kernels.Bookworm);
        KernelImage image = Load(booted);

        // Without the alternatives laid over: what 6.1's paravirt patcher writes is not what stands there in the end.
        PatchPlan callsOnly = new PatchPlanner().Plan(image.Code, image.Sites, image.Native, new PlanOptions { Rules = image.Era.Rules });
        // The rules of 4.20: no inline forms, but other nops and other ideas of a null slot.
        PatchPlan otherEra = new PatchPlanner().Plan(
            image.Code, image.Sites, image.Native, new PlanOptions { Rules = LinuxRules.Linux420, Nops = PvPatch.Encoding.NopStyle.K8 });

        Assert.True(Compare(callsOnly, booted.AfterPatching).Wrong.Count > 1000);
        Assert.True(Compare(otherEra, booted.AfterPatching).Wrong.Count > 1000);
        Assert.True(Compare(Plan(image), booted.AfterPatching).Wrong.Count == 0);
    }

    private static (int Matched, List<string> Wrong) Compare(PatchPlan plan, KernelMemory memory)
    {
        int matched = 0;
        List<string> wrong = [];
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            byte[] booted = memory.ReadKernel(site.Address.Value, site.Length);
            if (booted.AsSpan().SequenceEqual(site.NewBytes))
            {
                matched++;
            }
            else
            {
                wrong.Add($"{site}; booted {HexBytes.Format(booted)}");
            }
        }

        return (matched, wrong);
    }

    private static KernelImage Load(BootedKernel booted) =>
        KernelImage.TryLoad(booted.ImagePath, null, out KernelImage? image, out PatchDiagnostic? error) ? image : throw new PatchException(error);

    private static PackageRequest Named(string kernel) => kernel switch
    {
        "bullseye" => Kernels.Bullseye,
        "bookworm" => Kernels.Bookworm,
        "trixie" => Kernels.Trixie,
        "sid" => Kernels.Sid,
        _ => Kernels.BookwormI386,
    };

    private static PatchPlan Plan(KernelImage image, BootMachine? machine = null) =>
        new KernelPlanner().TryPlan(image, machine ?? new BootMachine(), out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics) ? plan : throw new PatchException(diagnostics[0]);
}
