using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.KernelTests;

/// <summary>The kernels of the matrix, and what every test does with one.</summary>
internal static class TestedKernels
{
    public static PackageRequest Named(string kernel) => kernel switch
    {
        "bullseye" => Kernels.Bullseye,
        "bookworm" => Kernels.Bookworm,
        "trixie" => Kernels.Trixie,
        "sid" => Kernels.Sid,
        "bookworm-i386" => Kernels.BookwormI386,
        "bookworm-cloud" => new PackageRequest("bookworm", "linux-image-cloud-amd64"),
        "bookworm-rt" => new PackageRequest("bookworm", "linux-image-rt-amd64"),
        "trixie-cloud" => new PackageRequest("trixie", "linux-image-cloud-amd64"),
        _ => throw new ArgumentException(kernel, nameof(kernel)),
    };

    public static KernelImage Load(string path)
    {
        Require.Unpacking(path);
        return KernelImage.TryOpen(path, out KernelImage? image, out PatchDiagnostic? error) ? image : throw new PatchException(error);
    }

    public static PatchPlan Plan(KernelImage image, BootMachine machine) =>
        new KernelPlanner().TryPlan(image, machine, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan : throw new PatchException(diagnostics[0]);

    /// <summary>Cells of the matrix: each kernel in each boot.</summary>
    /// <param name="kernels">The kernels, by name.</param>
    /// <param name="boots">The boots.</param>
    /// <param name="without">Cells that are left out: they can't be had, or every run has them.</param>
    public static TheoryData<string, string> Cells(
        IReadOnlyList<string> kernels, IEnumerable<BootConfiguration> boots, params IReadOnlyList<(string Kernel, string Boot)> without)
    {
        var cells = new TheoryData<string, string>();
        foreach ((string kernel, string boot) in kernels.SelectMany(k => boots.Select(b => (k, b.Name))).Where(c => !without.Contains(c)))
        {
            cells.Add(kernel, boot);
        }

        return cells;
    }

    /// <summary>Boots a kernel as a column of the matrix says: every site must hold the bytes planned for it.</summary>
    /// <returns>The boot.</returns>
    public static BootedKernel CheckBoot(BootedKernelFixture fixture, ITestOutputHelper output, string kernel, string boot)
    {
        BootConfiguration configuration = BootConfiguration.Named(boot);
        BootedKernel booted = fixture.Boot(Named(kernel), configuration.Options);
        KernelImage image = Load(booted.ImagePath);
        PatchPlan plan = Plan(image, configuration.Machine);

        (int matched, List<string> wrong) = Compare(plan, booted.AfterPatching);

        output.WriteLine(
            $"{kernel} {boot}: {booted.Package?.Package} {booted.Package?.Version}: {matched} of {image.Sites.Count} sites equal; "
            + $"{plan.Summary}");
        Assert.Empty(wrong);
        Assert.Equal(image.Sites.Count, matched);
        Assert.True(matched > 200, $"only {matched} sites: is this the kernel's table?");
        return booted;
    }

    /// <summary>How many sites hold the plan's bytes in memory, and which do not.</summary>
    public static (int Matched, List<string> Wrong) Compare(PatchPlan plan, KernelMemory memory)
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
}
