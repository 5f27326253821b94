using System.Globalization;
using PvPatch.Linux.Files;
using PvPatch.Linux.Modules;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Modules;

/// <summary>
/// Modules written in assembly, in the form of an era, and kernels they belong to. The same source is assembled to a module, and
/// linked at the module's addresses as it is or as it is once it was loaded: so bytes and relocations are those of binutils.
/// </summary>
internal sealed class ModuleSource(int bitness, bool directCalls)
{
    public const ulong Text = 0xffffffffc0400000;
    public const ulong Text32 = 0xf8400000;

    // The functions of the synthetic kernels.
    private static readonly (string Name, string Slot)[] s_functions =
        [("flush", "mmu.flush_tlb_user"), ("kick", "lock.kick"), ("helper", "irq.halt"), ("BUG_func", "mmu.set_fixmap"),
            ("disable", "irq.irq_disable")];

    private const string Macros = """
        .macro call_slot slot
        .if BITS == 64
        call *pv_ops + 8*\slot(%rip)
        .else
        call *pv_ops + 4*\slot
        .endif
        .endm

        .macro record feature, from, to
        .pushsection .altinstructions, "a"
        .long 771b - .
        .long \from - .
        .if DIRECT
        .long \feature
        .else
        .word (\feature & 0xfff) | (((\feature >> 16) & 1) << 15)
        .endif
        .byte 772b - 771b, \to - \from
        .popsection
        .endm

        .macro site slot, patched
        771: .if PATCHED
        \patched
        .else
        call_slot \slot
        .endif
        772:
        .if DIRECT
        .pushsection .altinstr_replacement, "ax"
        775: call BUG_func
        776:
        .popsection
        record 0x20075, 775b, 776b
        .else
        .pushsection .parainstructions, "a"
        .if BITS == 64
        .balign 8
        .quad 771b
        .byte \slot, 772b - 771b
        .short 0x1ff
        .balign 8
        .else
        .balign 4
        .long 771b
        .byte \slot, 772b - 771b
        .short 0xf
        .endif
        .popsection
        .endif
        .endm

        .macro alternative feature, replacement
        .pushsection .altinstr_replacement, "ax"
        773: \replacement
        774:
        .popsection
        record \feature, 773b, 774b
        .endm

        .set NOT_XENPV, 0x10110
        .set XENPV, 0x00110

        """;

    private const string Code64 = """
        .text
        start: push %rbp
        call helper
        site 5, "cli; .nops 5"
        alternative NOT_XENPV, "cli"
        site 8, "call flush; nop"
        site 12, ".nops 6"
        mov $table, %rdi
        mov %gs:percpu(%rip), %rax
        lea table(%rip), %rsi
        jmp later
        site 5, "call disable; nop"
        alternative XENPV, "int3"
        site 4, "call helper; nop"
        alternative NOT_XENPV, "call helper"
        .section .noinstr.text, "ax"
        later: site 22, "call kick; nop"
        ret
        .section .exit.text, "ax"
        .balign 16
        leave: site 16, "mov %rdi, %rax; .nops 3"
        alternative NOT_XENPV, "mov %rdi, %rax"
        ret
        .section .init.text, "ax"
        site 8, "call flush; nop"
        jmp start
        .section .rodata, "a"
        .balign 64
        .quad start, later
        .data
        table: .quad start, helper, table + 8, leave
        .quad helper - .
        .long later - ., percpu
        .weak nowhere
        .quad nowhere
        .bss
        .balign 64
        .skip 100

        """;

    private const string Code32 = """
        .text
        start: push %ebp
        call helper
        site 5, "cli; .byte 0x3e, 0x8d, 0x74, 0x26, 0x00"
        alternative NOT_XENPV, "cli"
        site 8, "call flush; nop"
        mov $table, %edi
        jmp later
        .section .noinstr.text, "ax"
        later: site 22, "call kick; nop"
        ret
        .section .init.text, "ax"
        site 8, "call flush; nop"
        jmp start
        .data
        table: .long start, helper, table + 4, later - .
        .bss
        .skip 100

        """;

    public int Bitness => bitness;

    public ulong TextAddress => bitness == 64 ? Text : Text32;

    public string Code => bitness == 64 ? Code64 : Code32;

    /// <summary>The kernel the module belongs to.</summary>
    public KernelImage Kernel() => bitness == 32 ? Opened(LinkedKernel(Kernel32Text, 4), null) : directCalls
        ? Opened(LinkedKernel(SyntheticKernel.Text, 8), null) : Synthetic();

    /// <summary>Assembles the module.</summary>
    public byte[] Assemble(string? code = null) => Tools.Assemble($"{Head(patched: false)}{code ?? Code}", bitness);

    /// <summary>Opens the assembled module.</summary>
    public KernelModule Open(string? code = null) => Open(Assemble(code));

    public static KernelModule Open(byte[] file)
    {
        Assert.True(KernelModule.TryOpen(file, out KernelModule? module, out PatchDiagnostic? error), error?.ToString());
        return module;
    }

    /// <summary>Links the same source with its sections at the addresses of a placed module, the kernel's symbols known.</summary>
    public byte[] Link(PlacedModule at, bool patched)
    {
        byte[] module = patched ? Tools.Assemble($"{Head(patched)}{Code}", bitness) : at.Module.Elf.File.ToArray();
        return Tools.Link(
            module,
            bitness,
            [.. s_functions.Select(f => (f.Name, Function(f.Slot))), ("pv_ops", OpsTable), ("percpu", PerCpu)],
            [.. at.Elf.Sections.Where(static s => s.IsAllocated).Select(static s => (s.Name, s.Address.Value))]);
    }

    private const ulong Kernel32Text = 0xc1000000;

    // Per-processor data lies at small addresses of its own.
    private const ulong PerCpu = 0x1040;

    private ulong OpsTable => bitness == 64 ? SyntheticKernel.OpsTable : Kernel32Text + 0x10000;

    // The linked kernels have the functions of all slots at the same distances as the synthetic one.
    private ulong Function(string slot) =>
        SyntheticKernel.FunctionOf(slot) - SyntheticKernel.Text + (bitness == 64 ? SyntheticKernel.Text : Kernel32Text);

    private string Head(bool patched) => string.Create(
        CultureInfo.InvariantCulture,
        $".set BITS, {bitness}\n.set DIRECT, {(directCalls ? 1 : 0)}\n.set PATCHED, {(patched ? 1 : 0)}\n{Macros}");

    private static KernelImage Opened(byte[] file, KernelSymbols? symbols)
    {
        Assert.True(KernelImage.TryOpen(ElfImage.Read(file), new KernelOptions { Symbols = symbols }, out KernelImage? image,
            out PatchDiagnostic? error), error?.ToString());
        return image;
    }

    private KernelImage Synthetic()
    {
        string map = string.Concat(s_functions.Select(f => $"{Function(f.Slot):x16} T {f.Name}\n"))
            + $"{PerCpu:x16} A percpu\n{OpsTable:x16} D pv_ops\n";
        Assert.True(KernelSymbols.TryReadSystemMap(
            System.Text.Encoding.ASCII.GetBytes(map), out KernelSymbols? symbols, out PatchDiagnostic? error), error?.ToString());
        return Opened(SyntheticKernel.Complete().Build(), symbols);
    }

    private byte[] LinkedKernel(ulong text, int word)
    {
        string pointers = string.Join(
            ", ", SyntheticOps.Names.Select((name, i) => SyntheticOps.Empty.Contains(name) ? "nop_func" : $"functions + {16 * i}"));
        string names = string.Concat(s_functions.Select(
            f => $".globl {f.Name}\n.type {f.Name}, @function\n.set {f.Name}, functions + {16 * SyntheticOps.IndexOf(f.Slot)}\n"));
        string source = $"""
            {Head(patched: false)}
            .text
            .org 0x100
            nop_func: ret
            .org 0x200
            functions: .rept 32
            mov %edi, %eax
            ret
            .balign 16
            .endr
            site 8, "nop"
            .if !DIRECT
            alternative XENPV, "nop"
            .endif
            {names}
            .globl percpu
            .set percpu, 0x{PerCpu:x}
            .section .banner, "a"
            linux_banner: .ascii "Linux version 6.12.0-test (someone) "
            .skip 100, 'x'
            .section .ops, "aw"
            pv_ops: .{(word == 8 ? "quad" : "long")} {pointers}
            .section .BTF, "a"
            .byte {string.Join(", ", SyntheticOps.Btf(word))}

            """;
        return Tools.AssembleAndLink(
            source,
            bitness,
            (".text", text),
            (".ops", OpsTable),
            (".banner", text + 0x100000),
            (".BTF", text + 0x200000),
            (".parainstructions", text + 0x300000),
            (".altinstructions", text + 0x400000),
            (".altinstr_replacement", text + 0x500000));
    }
}
