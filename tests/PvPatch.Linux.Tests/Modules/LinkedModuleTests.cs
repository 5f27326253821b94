using PvPatch.Linux.Files;
using PvPatch.Linux.Modules;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Modules;

/// <summary>Modules against what binutils make of the same source: as linked at their addresses, and as patched by their kernel.</summary>
public sealed class LinkedModuleTests
{
    // Far from each other and out of order, as areas of vmalloc are.
    private static readonly (string Name, ulong Offset)[] s_scattered =
    [
        (".text", 0x30000), (".noinstr.text", 0x20000), (".exit.text", 0x28000), (".init.text", 0x8000), (".altinstr_replacement", 0x40000),
        (".altinstructions", 0x60000), (".parainstructions", 0x50000), (".rodata", 0x10000), (".data", 0x70000), (".bss", 0),
    ];

    [Theory]
    [InlineData(64, false, false)]
    [InlineData(64, false, true)]
    [InlineData(64, true, false)]
    [InlineData(64, true, true)]
    [InlineData(32, false, false)]
    [InlineData(32, false, true)]
    public void Every_section_is_as_the_linker_leaves_it_at_the_same_addresses(int bitness, bool directCalls, bool scattered)
    {
        var source = new ModuleSource(bitness, directCalls);
        PlacedModule placed = Place(source, scattered);
        ElfImage linked = ElfImage.Read(source.Link(placed, patched: false));

        Assert.Equal(0, placed.UnresolvedRelocations);
        Dictionary<string, string> expected = Content(linked);
        Assert.True(expected.Count >= 6);
        Assert.Equal(expected, Content(placed.Elf));
        Assert.Equal(linked.Sections.Where(IsCompared).ToDictionary(s => s.Name, s => s.Address),
            placed.Elf.Sections.Where(IsCompared).ToDictionary(s => s.Name, s => s.Address));
    }

    [Theory]
    [InlineData(64, false, false, 8)]
    [InlineData(64, false, true, 8)]
    [InlineData(64, true, false, 8)]
    [InlineData(64, true, true, 8)]
    [InlineData(32, false, false, 4)]
    [InlineData(32, false, true, 4)]
    public void The_plan_makes_of_the_module_what_the_assembler_makes_of_its_patched_form(
        int bitness, bool directCalls, bool scattered, int sites)
    {
        var source = new ModuleSource(bitness, directCalls);
        PlacedModule placed = Place(source, scattered);
        Dictionary<string, string> wanted = Code(ElfImage.Read(source.Link(placed, patched: true)));
        Dictionary<string, string> before = Code(placed.Elf);
        byte[] file = [.. placed.Module.Elf.File.Span];

        PatchPlan plan = Plan(placed, "native");
        Assert.Equal(sites, placed.Sites.Count);
        Assert.Equal(sites, plan.Count);
        Assert.NotEqual(wanted, before);
        plan.Apply(placed.Code);
        Assert.Equal(wanted, Code(placed.Elf));
        plan.Revert(placed.Code);
        Assert.Equal(before, Code(placed.Elf));
        Assert.Equal(file, placed.Module.Elf.File.ToArray());
    }

    [Fact]
    public void Targets_have_the_names_the_kernel_has_for_them()
    {
        PatchPlan plan = Plan(Place(new ModuleSource(64, directCalls: true), scattered: true), "native");
        IEnumerable<SiteDecision> calls = Enumerable.Range(0, plan.Count).Select(i => plan[i])
            .Where(static d => d.Action == PatchAction.Call && d.Outcome.Detail is null);
        Assert.Equal(["disable", "flush", "flush", "kick"], calls.Select(static c => c.Outcome.TargetName!).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_module_without_sites_has_an_empty_plan()
    {
        var source = new ModuleSource(64, directCalls: false);
        KernelModule module = source.Open(".text\nret\n");
        Assert.True(module.TryPlace(source.Kernel(), ModulePlacement.At(ModuleSource.Text), out PlacedModule? placed,
            out PatchDiagnostic? error), error?.ToString());
        Assert.Empty(Plan(placed, "native"));
    }

    private static PlacedModule Place(ModuleSource source, bool scattered)
    {
        KernelModule module = source.Open();
        ModulePlacement placement = !scattered ? ModulePlacement.At(source.TextAddress) : new ModulePlacement
        {
            Sections = s_scattered.Where(p => module.Elf.TryGetSection(p.Name, out _))
                .ToDictionary(p => p.Name, p => new VirtualAddress(source.TextAddress + p.Offset)),
        };
        Assert.True(module.TryPlace(source.Kernel(), placement, out PlacedModule? placed, out PatchDiagnostic? error), error?.ToString());
        Assert.Empty(placed.Warnings);
        return placed;
    }

    private static PatchPlan Plan(PlacedModule placed, string backend)
    {
        Assert.True(new KernelPlanner().TryPlan(placed, new BootMachine { Backend = backend }, out PatchPlan? plan,
            out IReadOnlyList<PatchDiagnostic> diagnostics), string.Join("; ", diagnostics));
        return plan;
    }

    // The linker adds a section that says which instructions are used.
    private static bool IsCompared(ElfSection section) =>
        section is { IsAllocated: true, HasFileContent: true, Size: > 0, Name: not ".note.gnu.property" };

    private static Dictionary<string, string> Content(ElfImage elf) =>
        elf.Sections.Where(IsCompared).ToDictionary(s => s.Name, s => Convert.ToHexString(elf.GetBytes(s).Span));

    private static Dictionary<string, string> Code(ElfImage elf) =>
        elf.Sections.Where(static s => IsCompared(s) && s.IsExecutable)
            .ToDictionary(s => s.Name, s => Convert.ToHexString(elf.GetBytes(s).Span));
}
