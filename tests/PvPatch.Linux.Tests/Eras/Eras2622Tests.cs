using PvPatch.Linux.Eras;
using PvPatch.Machine;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// 2.6.22 and 2.6.23: type numbers are indexes into struct paravirt_ops; a default rule with the clobber test. Xen and lguest from 2.6.23
/// on.
/// </summary>
public sealed class Eras2622Tests
{
    private const string Sites = """
        type | clobbers | original | 2.6.22 | vmi | 2.6.23 | lguest | xen
        29 | 1 | push %ecx; push %edx; call *paravirt_ops+4*29; pop %edx; pop %ecx | cli; i8; i1 | call rom_disable; i5 | cli; i8; i1 | movl $0, lguest_data | movb $1, %fs:vcpu_info+1; i2
        30 | 7 | push %eax; push %ecx; push %edx; call *%cs:paravirt_ops+4*30; pop %edx; pop %ecx; pop %eax | sti; i8; i4 | i8; i5 | sti; i8; i4 | movl $0x200, lguest_data; i3 | call xen_irq_enable_direct; i8
        29 | 0 | push %eax; push %ecx; push %edx; call *%cs:paravirt_ops+4*29; pop %edx; pop %ecx; pop %eax | cli; i8; i4 | call rom_disable; i8 | cli; i8; i4 | movl $0, lguest_data; i3 | movb $1, %fs:vcpu_info+1; i5
        27 | 1 | push %ecx; push %edx; call *paravirt_ops+4*27; pop %edx; pop %ecx | pushf; pop %eax; i8 | = | pushf; pop %eax; i8 | mov lguest_data, %eax; i5 | =
        28 | 1 | push %ecx; push %edx; call *paravirt_ops+4*28; pop %edx; pop %ecx | push %eax; popf; i8 | call rom_restore; i5 | push %eax; popf; i8 | mov %eax, lguest_data; i5 | =
        91 | 0 | jmp *%cs:paravirt_ops+4*91 | iret; i6 | jmp rom_iret; i2 | iret; i6 | jmp lguest_iret; i2 | jmp xen_iret; i2
        90 | 0 | jmp *%cs:paravirt_ops+4*90 | sti; sysexit; i4 | = | sti; sysexit; i4 | jmp native_irq_enable_sysexit; i2 | ud2; i5
        20 | 7 | call *paravirt_ops+4*20 | mov %cr2, %eax; i3 | = | mov %cr2, %eax; i3 | call lguest_read_cr2; i1 | call xen_read_cr2; i1
        22 | 7 | call *paravirt_ops+4*22 | mov %cr3, %eax; i3 | = | mov %cr3, %eax; i3 | call lguest_read_cr3; i1 | call xen_read_cr3; i1
        23 | 7 | call *paravirt_ops+4*23 | mov %eax, %cr3; i3 | = | mov %eax, %cr3; i3 | call lguest_write_cr3; i1 | call xen_write_cr3; i1
        17 | 7 | call *paravirt_ops+4*17 | clts; i4 | = | clts; i4 | call lguest_clts; i1 | call native_clts; i1
        36 | 7 | call *paravirt_ops+4*36 | rdtsc; i4 | = | rdtsc; i4 | call native_read_tsc; i1 | call native_read_tsc; i1
        41 | 7 | call *paravirt_ops+4*41 | call native_load_gdt; i1 | = | call native_load_gdt; i1 | call lguest_load_gdt; i1 | call xen_load_gdt; i1
        54 | 0 | call *paravirt_ops+4*54 | i6 | = | i6 | i6 | =
        72 | 7 | call *paravirt_ops+4*72 | call native_set_pte; i1 | = | call native_set_pte; i1 | call lguest_set_pte; i1 | call xen_set_pte; i1
        74 | 3 | call *paravirt_ops+4*74 | = | = | = | = | =
        80 | 7 | call *paravirt_ops+4*80 | ud2; i4 | = | ud2; i4 | ud2; i4 | ud2; i4
        83 | 7 | call *paravirt_ops+4*83 | i6 | = | call native_pte_val; i1 | call native_pte_val; i1 | call xen_pte_val; i1
        88 | 7 | call *paravirt_ops+4*88 | i6 | = | call native_make_pgd; i1 | call native_make_pgd; i1 | call xen_make_pgd; i1
        72 | 7 | call *(%edx) | = | = | = | = | =
        """;

    private const string Guests = """
        vmi_init: ret
        lguest_init: ret
        lguest_iret: ret
        lguest_read_cr2: ret
        lguest_read_cr3: ret
        lguest_write_cr3: ret
        lguest_clts: ret
        lguest_load_gdt: ret
        lguest_set_pte: ret
        lguest_set_pmd: ret
        xen_start_kernel: ret
        xen_patch: ret
        xen_irq_disable_direct: movb $1, %fs:vcpu_info+1
        xen_irq_disable_direct_end: ret
        xen_irq_enable_direct: andw $0x00ff, %fs:vcpu_info; je 1f; call check_events; 1:
        xen_irq_enable_direct_end: ret
        xen_save_fl_direct: testb $0xff, %fs:vcpu_info+1; setz %ah; add %ah, %ah
        xen_save_fl_direct_end: ret
        xen_restore_fl_direct: test $2, %ah; setz %fs:vcpu_info+1; cmpw $1, %fs:vcpu_info; je 1f; call check_events; 1:
        xen_restore_fl_direct_end: ret
        check_events: ret
        xen_iret: ret
        xen_read_cr2: ret
        xen_read_cr3: ret
        xen_write_cr3: ret
        xen_load_gdt: ret
        xen_activate_mm: ret
        xen_set_pte: ret
        xen_set_pmd: ret
        xen_pte_val: ret
        xen_make_pgd: ret
        """;

    private static EraKernel Kernel(string more) => new()
    {
        Bits = 32,
        Sites = Sites,
        Layout = EraLayouts.Known("2.6.22-i386-pae"),
        OneTable = "paravirt_ops",
        Words = new() { ["set_pud"] = "0", ["kernel_rpl"] = "1", ["name"] = "paravirt_ops" },
        Defines = """
            .set rom_disable, 0xfc001a20
            .set rom_restore, 0xfc001a60
            .set rom_iret, 0xfc001aa0
            .set lguest_data, 0xc0412340
            .globl lguest_data
            .set vcpu_info, 0xc0434560
            """,
        More = Guests + more,
    };

    private static readonly EraKernel s_2622 = Kernel("");

    // What writes the patches from 2.6.23 on.
    private static readonly EraKernel s_2623 = Kernel("\ntext_poke: ret");

    private static readonly BootMachine s_native = new() { Nops = NopStyle.Intel };

    [Fact]
    public void The_native_patcher_of_2_6_22_erases_conversions_and_that_of_2_6_23_calls_them()
    {
        Assert.Equal("linux-2.6.22", s_2622.Open().Era.Name);
        Assert.Equal("2.6.22-i386-pae", s_2622.Open().Layout.Name);
        s_2622.MustBecome("2.6.22", s_native);
        Assert.Equal("linux-2.6.23", s_2623.Open().Era.Name);
        s_2623.MustBecome("2.6.23", s_native);
    }

    [Fact]
    public void Without_symbols_the_two_cannot_be_told_apart_and_the_era_is_asked_for()
    {
        PatchDiagnostic error = s_2622.OpenError(KernelDiagnosticCodes.EraUnknown, symbols: false);
        Assert.Equal("linux-2.6.22 or linux-2.6.23", error.Expected);
        Assert.Contains("--era", error.Help, StringComparison.Ordinal);
        s_2622.MustBecome("2.6.22", s_native, new KernelOptions { Era = KernelEra.Linux2622 }, symbols: false);
        s_2622.MustBecome("2.6.23", s_native, new KernelOptions { Era = KernelEra.Linux2623 }, symbols: false);
    }

    [Fact]
    public void A_VMI_guest_leaves_all_but_six_slots_alone() => s_2622.MustBecome("vmi", s_native with
    {
        Backend = VmiBackend.Name,
        Vmi = EraRom.Answering(
            (VmiCall.DisableInterrupts, VmiRelocationKind.CallRel, 0xfc001a20),
            (VmiCall.EnableInterrupts, VmiRelocationKind.Nop, 0),
            (VmiCall.SetInterruptMask, VmiRelocationKind.CallRel, 0xfc001a60),
            (VmiCall.InterruptReturn, VmiRelocationKind.JumpRel, 0xfc001aa0)),
    });

    [Fact]
    public void An_lguest_guest_stores_its_interrupt_flag_in_ten_bytes() =>
        s_2623.MustBecome("lguest", s_native with { Backend = LguestBackend.Name });

    [Fact]
    public void A_Xen_guest_masks_events_where_its_template_fits() => s_2623.MustBecome("xen", s_native with { Backend = XenBackend.Name });
}
