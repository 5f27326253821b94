using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Fuzz;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>What images of older eras are taken for when something about them is not as it should be.</summary>
public sealed class EraDetectionTests
{
    private const string Sites = """
        type | clobbers | original
        45 | 1 | push %ecx; push %edx; call *pv_irq_ops+4*3; pop %edx; pop %ecx
        46 | 7 | push %eax; push %ecx; push %edx; call *%cs:pv_irq_ops+4*4; pop %edx; pop %ecx; pop %eax
        12 | 7 | call *pv_cpu_ops+4*2
        39 | 0 | jmp *%cs:pv_cpu_ops+4*29
        73 | 7 | call *pv_mmu_ops+4*18
        68 | 7 | call *pv_mmu_ops+4*13
        """;

    private static EraKernel Kernel(string sites, OpsLayout? layout = null) =>
        new() { Bits = 32, Sites = sites, Layout = layout ?? EraLayouts.Known("2.6.24-i386-pae-highpte") };

    [Fact]
    public void Every_era_has_a_name_of_its_own_by_which_it_is_found()
    {
        Assert.Equal(KernelEra.All.Count, KernelEra.All.Select(e => e.Name).Distinct().Count());
        Assert.All(KernelEra.All, e => Assert.True(KernelEra.TryGet(e.Name, out KernelEra? found) && found == e));
    }

    [Fact]
    public void Sites_of_eras_that_never_met_are_no_era()
    {
        // The last is of 2.6.20 alone, in a kernel with several tables.
        PatchDiagnostic error = Kernel(Sites + "\n46 | 1 | push %ecx; push %edx; call *%cs:pv_irq_ops+4*4; pop %edx; pop %ecx")
            .OpenError(KernelDiagnosticCodes.EraUnknown);
        Assert.Contains("2.6.20", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void A_layout_that_the_functions_contradict_is_not_taken()
    {
        // One slot more in the middle of the cpu table: lgdt is where ltr should be.
        string text = string.Join('\n',
            EraLayouts.Known("2.6.24-i386-pae-highpte")
                .Slots.Select(s => s.Name == "cpu.load_tr_desc" ? "cpu.new\ncpu.load_tr_desc" : s.Name));
        OpsLayout shifted = EraLayouts.Read("bits 32\n" + text);
        EraKernel kernel = Kernel(Sites, shifted);
        Assert.Contains("--layout", kernel.OpenError(KernelDiagnosticCodes.LayoutUnknown).Help, StringComparison.Ordinal);
        Assert.Contains("--layout", kernel.OpenError(KernelDiagnosticCodes.LayoutUnknown, symbols: false).Help, StringComparison.Ordinal);
    }

    [Fact]
    public void Symbols_may_come_from_a_System_map()
    {
        EraKernel kernel = Kernel(Sites);
        ElfImage named = kernel.Link();
        Assert.True(KernelSymbols.TryFromImage(named, out KernelSymbols? own, out _));
        string map = string.Concat(own.All.Select(s => $"{s.Address.Value:x8} {s.Type} {s.Name}\n"));
        Assert.True(KernelSymbols.TryReadSystemMap(
            System.Text.Encoding.ASCII.GetBytes(map), out KernelSymbols? symbols, out PatchDiagnostic? error), error?.ToString());
        KernelImage image = kernel.Open(new KernelOptions { Symbols = symbols }, symbols: false);
        Assert.Equal(kernel.Open().SlotWords, image.SlotWords);
        Assert.False(image.SlotWords[0].IsZero); // pv_init_ops, which no site tells
    }

    [Fact]
    public void A_site_that_goes_through_another_slots_word_fails_the_plan()
    {
        KernelImage image = Kernel(Sites + "\n12 | 7 | call *pv_cpu_ops+4*3").Open();
        Assert.False(new KernelPlanner().TryPlan(image, "native", out _, out IReadOnlyList<PatchDiagnostic> found));
        Assert.Contains(found, d => d.Code == DiagnosticCodes.WrongSlotOperand);
    }

    [Fact]
    public void An_image_patched_already_is_told_so()
    {
        EraKernel kernel = Kernel(Sites);
        KernelImage image = kernel.Open();
        Assert.True(new KernelPlanner().TryPlan(image, "native", out PatchPlan? plan, out _));
        plan.Apply(image.Code);
        foreach (KernelOptions? options in (KernelOptions?[])[null, new KernelOptions { Era = image.Era, Layout = image.Layout }])
        {
            Assert.False(KernelImage.TryOpen(image.Elf, options, out _, out PatchDiagnostic? error));
            Assert.Equal(KernelDiagnosticCodes.OpsTableNotFound, error.Code);
            Assert.Contains("original", error.Help, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Damaged_images_open_or_are_refused_and_nothing_else()
    {
        byte[] file = Kernel(Sites).Link().File.ToArray();
        var mutator = new Mutator(2624);
        int opened = 0;
        int refused = 0;
        for (int i = 0; i < 3000; i++)
        {
            if (!ElfImage.TryRead(mutator.Mutate(file), out ElfImage? elf, out _)
                || !KernelImage.TryOpen(elf, out KernelImage? image, out _))
            {
                refused++;
                continue;
            }

            opened++;
            bool planned = new KernelPlanner().TryPlan(image, "native", out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> found);
            Assert.True(planned ? plan!.Count == image.Sites.Count : found.Any(d => d.Severity == DiagnosticSeverity.Error));
        }

        Assert.InRange(opened, 100, 2900);
        Assert.InRange(refused, 100, 2900);
    }
}
