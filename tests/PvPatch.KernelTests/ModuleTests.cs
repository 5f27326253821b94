using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Linux.Files;
using PvPatch.Linux.Modules;
using PvPatch.Plans;

namespace PvPatch.KernelTests;

/// <summary>The plan for a module's file against the memory of the kernel that loaded it, at the addresses that kernel tells.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class ModuleTests(ITestOutputHelper output)
{
    // Those with the most paravirt sites that load on any machine; kvm needs irqbypass.
    private static readonly string[] s_names = ["irqbypass", "kvm", "mce-inject"];

    // 32-bit modules call through the ops table for I/O alone; these are libraries of drivers, which need no device.
    private static readonly string[] s_names32 = ["8390p", "vgastate", "svgalib"];

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

            cells.Add("bookworm-i386", "native");
            return cells;
        }
    }

    [Theory]
    [InlineData("bookworm")]
    [InlineData("trixie")]
    public void Every_site_of_a_loaded_module_holds_the_planned_bytes(string kernel) => Check(kernel, "native");

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Every_site_of_a_loaded_module_of_the_matrix_holds_the_planned_bytes(string kernel, string boot) => Check(kernel, boot);

    private void Check(string kernel, string boot)
    {
        Require.PackageFetching();
        Require.KernelBooting();
        Require.Tool("xz", "xz-utils");
        BootConfiguration configuration = BootConfiguration.Named(boot);
        PackageRequest request = TestedKernels.Named(kernel);
        DebianModules modules = Require.Available(
            () => DebianModules.Fetch(request, request.Architecture == "amd64" ? s_names : s_names32));
        KernelImage image = TestedKernels.Load(modules.Kernel.ImagePath);
        _ = image.Symbols!.TryGetAddress(HypervisorLeaves.Function, out VirtualAddress cpuid);
        MachineOptions options = configuration.Options with { Architecture = modules.Kernel.Architecture };
        using LoadedModules loaded = LoadedModules.Boot(modules, options, cpuid.Value);
        int compared = 0;
        int others = 0;
        foreach (string path in modules.Paths)
        {
            Assert.True(KernelModule.TryOpen(path, out KernelModule? module, out PatchDiagnostic? error), error?.ToString());
            ModulePlacement placement = new() { Sections = loaded.SectionsOf(module.Name!) };
            Assert.True(module.TryPlace(image, placement, out PlacedModule? placed, out error), error?.ToString());
            Assert.Empty(placed.Warnings);
            CheckLayout(placed, loaded);
            PatchPlan plan = Plan(placed, configuration.Machine);

            (int matched, int freed, List<string> wrong) = Compare(plan, loaded);

            output.WriteLine(
                $"{kernel} {boot}, {module.Name} for {module.Release}: {matched} of {plan.Count} sites equal, {freed} freed; "
                + $"{placed.UnresolvedRelocations} relocations left; {plan.Summary}");
            Assert.Empty(wrong);
            Assert.Equal(plan.Count, matched + freed);
            compared += matched;

            // The plan for another machine must not fit; 32-bit kernels have no Xen PV to plan for.
            string other = configuration.Machine.Backend == "xen" ? "native" : "xen";
            if (image.BackendNames.Contains(other))
            {
                others += Compare(Plan(placed, configuration.Machine with { Backend = other }), loaded).Wrong.Count;
            }
        }

        bool is64 = image.Elf.Bitness == 64;
        Assert.True(compared > 100, $"only {compared} sites: are these the modules?");
        Assert.True(!is64 || others > 40, $"the plan of another backend differs at {others} sites only");
    }

    /// <summary>Told the address of .text alone, the code that stays comes to lie where the kernel has it.</summary>
    private static void CheckLayout(PlacedModule told, LoadedModules loaded)
    {
        IReadOnlyDictionary<string, VirtualAddress> sections = loaded.SectionsOf(told.Module.Name!);
        Assert.True(told.Module.TryPlace(
            told.Kernel, ModulePlacement.At(sections[".text"]), out PlacedModule? guessed, out PatchDiagnostic? error), error?.ToString());
        foreach (ElfSection section in guessed.Elf.Sections.Where(
            static s => s.IsAllocated && s.IsExecutable && s.Size > 0 && !s.Name.StartsWith(".init", StringComparison.Ordinal)))
        {
            Assert.Equal((section.Name, sections[section.Name]), (section.Name, section.Address));
        }
    }

    private static PatchPlan Plan(PlacedModule module, BootMachine machine) =>
        new KernelPlanner().TryPlan(module, machine, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan : throw new PatchException(diagnostics[0]);

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

            byte[] there = memory.Read(segment.Address.Value, (int)segment.Length)
                .AsSpan((int)(site.Address - segment.Address), site.Length).ToArray();
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
