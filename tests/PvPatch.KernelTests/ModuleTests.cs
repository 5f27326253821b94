using PvPatch.KernelTests.Harness;
using PvPatch.Linux.Kernel;
using PvPatch.Linux.Modules;
using PvPatch.Plans;
using Xunit.Abstractions;

namespace PvPatch.KernelTests;

/// <summary>The plan for a module's file against the memory of the kernel that loaded it, at the addresses that kernel tells.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class ModuleTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    // Those with the most paravirt sites that load on any machine; kvm needs irqbypass.
    private static readonly string[] s_names = ["irqbypass", "kvm", "mce-inject"];

    public static TheoryData<string, string> Rest
    {
        get
        {
            var cells = new TheoryData<string, string>();
            foreach (string kernel in (string[])["bullseye", "bookworm", "trixie", "sid"])
            {
                foreach (string boot in (string[])["native", "kvm-0x22a2-2cpu", "xen-1cpu", "xen-2cpu"])
                {
                    if ((kernel, boot) is not (("bookworm" or "trixie"), "native"))
                    {
                        cells.Add(kernel, boot);
                    }
                }
            }

            return cells;
        }
    }

    [SkippableTheory]
    [InlineData("bookworm")]
    [InlineData("trixie")]
    public void Every_site_of_a_loaded_module_holds_the_planned_bytes(string kernel) => Check(kernel, "native");

    [SkippableTheory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Every_site_of_a_loaded_module_of_the_matrix_holds_the_planned_bytes(string kernel, string boot) => Check(kernel, boot);

    private void Check(string kernel, string boot)
    {
        _ = fixture;
        Require.PackageFetching();
        Require.KernelBooting();
        Require.Tool("xz", "xz-utils");
        BootConfiguration configuration = BootConfiguration.Named(boot);
        DebianModules modules = Require.Available(() => DebianModules.Fetch(TestedKernels.Named(kernel), s_names));
        KernelImage image = TestedKernels.Load(modules.Kernel.ImagePath);
        using LoadedModules loaded = LoadedModules.Boot(modules, configuration.Options, image.Symbols!.TryGetAddress(KvmLeaves.Function, out VirtualAddress cpuid) ? cpuid.Value : 0);
        int compared = 0;
        int xen = 0;
        foreach (string path in modules.Paths)
        {
            Assert.True(KernelModule.TryOpen(path, null, out KernelModule? module, out PatchDiagnostic? error), error?.ToString());
            ModulePlacement placement = new() { Sections = loaded.SectionsOf(module.Name!) };
            Assert.True(module.TryPlace(image, placement, out PlacedModule? placed, out error), error?.ToString());
            Assert.Empty(placed.Warnings);
            PatchPlan plan = Plan(placed, configuration.Machine);

            (int matched, int freed, List<string> wrong) = Compare(plan, loaded);

            output.WriteLine($"{kernel} {boot}, {module.Name} for {module.Release}: {matched} of {plan.Count} sites equal, {freed} freed; {placed.LeftUndone} relocations left; {plan.Summary}");
            Assert.Empty(wrong);
            Assert.Equal(plan.Count, matched + freed);
            compared += matched;

            // The plan for another machine must not fit.
            string other = configuration.Machine.Backend == "xen" ? "native" : "xen";
            xen += Compare(Plan(placed, configuration.Machine with { Backend = other }), loaded).Wrong.Count;
        }

        Assert.True(compared > 80, $"only {compared} sites: are these the modules?");
        Assert.True(xen > 40, $"the plan of another backend differs at {xen} sites only");
    }

    private static PatchPlan Plan(PlacedModule module, BootMachine machine) =>
        new ModulePlanner().TryPlan(module, machine, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics) ? plan : throw new PatchException(diagnostics[0]);

    private static (int Matched, int Freed, List<string> Wrong) Compare(PatchPlan plan, LoadedModules memory)
    {
        int matched = 0;
        int freed = 0;
        List<string> wrong = [];
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            PlanSegment segment = plan.Segments.Single(s => site.Address >= s.Address && site.Address - s.Address < s.Length);
            if (segment.Name.StartsWith(".init", StringComparison.Ordinal))
            {
                freed++; // at the end of the module's start
                continue;
            }

            byte[] there = memory.Read(segment.Address.Value, (int)segment.Length).AsSpan((int)(site.Address - segment.Address), site.Length).ToArray();
            if (there.AsSpan().SequenceEqual(site.NewBytes))
            {
                matched++;
            }
            else
            {
                wrong.Add($"{site}; in memory {HexBytes.Format(there)}");
            }
        }

        return (matched, freed, wrong);
    }
}
