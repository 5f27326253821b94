using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Modules;
using PvPatch.Linux.Tests.Eras;
using PvPatch.Linux.Tests.Support;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Modules;

/// <summary>
/// A module of a kernel with several ops tables (2.6.24 to 4.19), whose places a kernel without symbols tells by its own sites.
/// </summary>
public sealed class OldModuleTests
{
    private const ulong Text = 0xffffffffa0000000;

    private static readonly OpsLayout s_layout = EraLayouts.Read("""
        bits 64
        init.patch
        cpu.wbinvd
        irq.save_fl
        irq.irq_disable
        mmu.write_cr3
        mmu.alloc_pte
        lock.spin_lock
        """);

    private static readonly EraKernel s_kernel = new()
    {
        Bits = 64,
        Layout = s_layout,
        Sites = """
            type | clobbers | original
            1 | 0x1ff | call *pv_cpu_ops(%rip)
            3 | 1 | push %rdi; call *pv_irq_ops+8(%rip); pop %rdi
            5 | 0x1ff | call *pv_mmu_ops+8(%rip)
            6 | 0x1ff | call *pv_lock_ops(%rip)
            """,
    };

    private static readonly (int Type, int Clobbers, string Original, string Patched)[] s_sites =
    [
        (3, 1, "push %rdi; call *pv_irq_ops+8(%rip); pop %rdi", "cli; p7"),
        (4, 0x1ff, "call *pv_mmu_ops(%rip)", "mov %rdi, %cr3; p3"),
        (5, 0x1ff, "call *pv_mmu_ops+8(%rip)", "p6"),
        (6, 0x1ff, "call *pv_lock_ops(%rip)", "call native_spin_lock; p1"),
    ];

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void The_plan_makes_of_the_module_what_the_assembler_makes_of_its_patched_form(bool symbols)
    {
        KernelImage kernel = s_kernel.Open(new KernelOptions { Layout = s_layout, Era = KernelEra.Linux2627 }, symbols);
        Assert.Equal(symbols, kernel.Symbols is not null);
        KernelModule module = ModuleSource.Open(Assemble(patched: false));
        Assert.True(
            module.TryPlace(kernel, ModulePlacement.At(Text), out PlacedModule? placed, out PatchDiagnostic? error), error?.ToString());
        Assert.True(new KernelPlanner().TryPlan(placed, new BootMachine(), out PatchPlan? plan,
            out IReadOnlyList<PatchDiagnostic> diagnostics), string.Join("; ", diagnostics));

        Assert.Equal(s_sites.Length, plan.Count);
        plan.Apply(placed.Code);
        Assert.Equal(Code(ElfImage.Read(Tools.Link(Assemble(patched: true), 64, KernelSymbols(), (".text", Text)))), Code(placed.Elf));
    }

    private static IEnumerable<(string Name, ulong Address)> KernelSymbols()
    {
        Assert.True(s_kernel.Link().TryReadSymbols(out ElfSymbolTable? table, out PatchDiagnostic? error), error?.ToString());
        return [.. ((string[])["native_spin_lock", "pv_irq_ops", "pv_mmu_ops", "pv_lock_ops"])
            .Select(name => table.TryFind(name, out ElfSymbol symbol) ? (name, symbol.Value.Value) : (name, 0))];
    }

    private static byte[] Assemble(bool patched)
    {
        string sites = string.Concat(s_sites.Select(s =>
            $"771: {(patched ? s.Patched : s.Original)}\n772: nop\n.pushsection .parainstructions, \"a\"\n.balign 8\n.quad 771b\n.byte "
                + $"{s.Type}, 772b - 771b\n.short {s.Clobbers}\n.popsection\n"));
        return Tools.Assemble($"{EraNops.Macros}\n.text\n{sites}ret\n", 64);
    }

    private static string Code(ElfImage elf)
    {
        Assert.True(elf.TryGetSection(".text", out ElfSection? text));
        return Convert.ToHexString(elf.GetBytes(text).Span);
    }
}
