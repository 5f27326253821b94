using System.Text;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>
/// A kernel written in assembly, twice: once as the compiler leaves it, once as a native boot does. The plan of the first must make
/// it the second, all of its code compared. Addresses, tables and encodings are those of binutils, not ours.
/// </summary>
public sealed class LinkedKernelTests
{
    // Either the call or its patched form is assembled, both of six bytes. The nops are those the assembler chooses.
    private const string Macros = """
        .macro site slot, patched
        771: .if PATCHED
        \patched
        .else
        call *pv_ops + 8*\slot(%rip)
        .endif
        772:
        .pushsection .parainstructions, "a"
        .balign 8
        .quad 771b
        .byte \slot, 772b - 771b
        .short 0x1ff
        .balign 8
        .popsection
        .endm

        .macro alternative feature, replacement
        .pushsection .altinstr_replacement, "ax"
        773: \replacement
        774:
        .popsection
        .pushsection .altinstructions, "a"
        .long 771b - .
        .long 773b - .
        .word \feature
        .byte 772b - 771b, 774b - 773b
        .popsection
        .endm

        .set NOT_XENPV, 0x8110
        .set NOT_PVUNLOCK, 0x8114
        .set NOT_VCPUPREEMPT, 0x8115
        .set XENPV, 0x0110

        """;

    private const string Code = """
        .text
        start: push %rbp
        site 5, "cli; .nops 5"
        alternative NOT_XENPV, "cli"
        site 6, "sti; .nops 5"
        alternative NOT_XENPV, "sti"
        mov %rsp, %rbp
        site 4, "pushf; pop %rax; .nops 4"
        alternative NOT_XENPV, "pushf; pop %rax"
        site 3, "wbinvd; .nops 4"
        alternative NOT_XENPV, "wbinvd"
        site 9, "mov %cr2, %rax; .nops 3"
        alternative NOT_XENPV, "mov %cr2, %rax"
        site 10, "mov %cr3, %rax; .nops 3"
        alternative NOT_XENPV, "mov %cr3, %rax"
        site 11, "mov %rdi, %cr3; .nops 3"
        alternative NOT_XENPV, "mov %rdi, %cr3"
        site 16, "mov %rdi, %rax; .nops 3"
        alternative NOT_XENPV, "mov %rdi, %rax"
        site 20, "movb $0, (%rdi); .nops 3"
        alternative NOT_PVUNLOCK, "movb $0, (%rdi)"
        site 21, "xor %rax, %rax; .nops 3"
        alternative NOT_VCPUPREEMPT, "xor %rax, %rax"
        site 12, ".nops 6"
        site 17, ".nops 6"
        site 8, "call flush; nop"
        site 22, "call kick; nop"
        site 7, "call early; nop"
        site 0, "call delay; nop"
        alternative NOT_XENPV, "call delay"
        site 5, "call disable; nop"
        alternative XENPV, "int3"
        pop %rbp
        ret
        empty: .byte 0xf3, 0x0f, 0x1e, 0xfa
        jmp thunk
        .balign 16
        flush: ret
        kick: ret
        delay: ret
        disable: ret
        other: ret
        thunk: ret
        int3
        .section .init.text, "ax"
        early: nop
        site 8, "call flush; nop"
        site 7, "call early; nop"
        site 6, "sti; .nops 5"
        alternative NOT_XENPV, "sti"
        ret

        .data
        .quad 0x1122334455667788
        pv_ops:
        .quad delay, empty, empty, other
        .quad other, disable, other, early
        .quad flush, other, other, other, empty, empty, empty, empty
        .quad other, empty, empty, 0
        .quad other, other, kick

        """;

    [Fact]
    public void The_plan_makes_of_the_assembled_kernel_what_the_assembler_makes_of_its_patched_form()
    {
        ElfImage original = Link(patched: false);
        ElfImage wanted = Link(patched: true);
        Assert.True(KernelImage.TryOpen(original, out KernelImage? kernel, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(20, kernel.Sites.Count);
        Assert.Equal(SyntheticOps.Names, kernel.Layout.Slots.Select(s => s.Name));
        Assert.Equal(13, kernel.Alternatives!.Count);

        PatchPlan plan = KernelPlanTests.Plan(kernel);
        Assert.NotEqual(Code64(wanted), Code64(original));
        plan.Apply(kernel.Code);
        Assert.Equal(Code64(wanted), Code64(original));
    }

    [Fact]
    public void Targets_have_the_names_of_the_symbol_table()
    {
        Assert.True(KernelImage.TryOpen(Link(patched: false), out KernelImage? kernel, out _));
        PatchPlan plan = KernelPlanTests.Plan(kernel);
        Assert.Equal(["delay", "disable", "early", "flush", "kick"], Enumerable.Range(0, plan.Count)
            .Where(i => plan[i].Action == PatchAction.Call)
            .Select(i => plan[i].Outcome.TargetName!)
            .Distinct()
            .Order(StringComparer.Ordinal));
    }

    private static Dictionary<string, string> Code64(ElfImage elf) => elf.Sections
        .Where(s => s.IsExecutable)
        .ToDictionary(s => s.Name, s => Convert.ToHexString(elf.GetBytes(s).Span));

    private static ElfImage Link(bool patched)
    {
        var source = new StringBuilder($".set PATCHED, {(patched ? 1 : 0)}\n").Append(Macros).Append(Code);
        source.Append(
            ".type delay, @function\n.type flush, @function\n.type kick, @function\n.type disable, @function\n.type early, @function\n");
        source.Append(".section .BTF, \"a\"\n.byte ").AppendJoin(", ", SyntheticOps.Btf()).Append('\n');
        return ElfImage.Read(Tools.AssembleAndLink(
            source.ToString(),
            64,
            (".text", SyntheticKernel.Text),
            (".data", SyntheticKernel.Data),
            (".BTF", 0xffffffff82b00000),
            (".init.text", SyntheticKernel.InitText),
            (".parainstructions", SyntheticKernel.SiteTableAddress),
            (".altinstructions", SyntheticKernel.AlternativesAddress),
            (".altinstr_replacement", SyntheticKernel.ReplacementAddress)));
    }
}
