using PvPatch.Machine;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>2.6.24: the slots lie in six tables apart from each other.</summary>
public sealed class Eras2624Tests
{
    private const string Sites = """
        type | clobbers | original | native | lguest | xen
        45 | 1 | push %ecx; push %edx; call *pv_irq_ops+4*3; pop %edx; pop %ecx | cli; i8; i1 | movl $0, lguest_data | movb $1, %fs:vcpu_info+1; i2
        46 | 7 | push %eax; push %ecx; push %edx; call *%cs:pv_irq_ops+4*4; pop %edx; pop %ecx; pop %eax | sti; i8; i4 | movl $0x200, lguest_data; i3 | call xen_irq_enable_direct; i8
        43 | 1 | push %ecx; push %edx; call *pv_irq_ops+4*1; pop %edx; pop %ecx | pushf; pop %eax; i8 | mov lguest_data, %eax; i5 | =
        44 | 1 | push %ecx; push %edx; call *pv_irq_ops+4*2; pop %edx; pop %ecx | push %eax; popf; i8 | mov %eax, lguest_data; i5 | =
        39 | 0 | jmp *%cs:pv_cpu_ops+4*29 | iret; i6 | jmp lguest_iret; i2 | jmp hypercall_page+23*32; i2
        38 | 0 | jmp *%cs:pv_cpu_ops+4*28 | sti; sysexit; i4 | jmp native_irq_enable_sysexit; i2 | ud2; i5
        12 | 7 | call *pv_cpu_ops+4*2 | clts; i4 | call lguest_clts; i1 | call native_clts; i1
        18 | 7 | call *pv_cpu_ops+4*8 | call native_load_tr_desc; i1 | call lguest_load_tr_desc; i1 | i6
        19 | 7 | call *pv_cpu_ops+4*9 | call native_load_gdt; i1 | call lguest_load_gdt; i1 | call xen_load_gdt; i1
        36 | 7 | call *pv_cpu_ops+4*26 | rdtsc; i4 | call native_read_tsc; i1 | call native_read_tsc; i1
        8 | 7 | call *pv_time_ops+4*3 | call native_sched_clock; i1 | call native_sched_clock; i1 | call xen_sched_clock; i1
        49 | 7 | call *pv_apic_ops | call native_apic_write; i1 | call native_apic_write; i1 | call xen_apic_write; i1
        57 | 7 | call *pv_mmu_ops+4*2 | mov %cr2, %eax; i3 | call lguest_read_cr2; i1 | call xen_read_cr2; i1
        60 | 7 | call *pv_mmu_ops+4*5 | mov %eax, %cr3; i3 | call lguest_write_cr3; i1 | call xen_write_cr3; i1
        68 | 7 | call *pv_mmu_ops+4*13 | i6 | i6 | call xen_alloc_pt; i1
        73 | 7 | call *pv_mmu_ops+4*18 | call native_set_pte; i1 | call lguest_set_pte; i1 | call xen_set_pte; i1
        73 | 3 | call *pv_mmu_ops+4*18 | = | = | =
        76 | 7 | call *pv_mmu_ops+4*21 | i6 | call lguest_pte_update; i1 | i6
        83 | 7 | call *pv_mmu_ops+4*28 | call native_pte_val; i1 | call native_pte_val; i1 | call xen_pte_val; i1
        73 | 7 | call *(%eax) | = | = | =
        """;

    private static readonly EraKernel s_kernel = new()
    {
        Bits = 32,
        Sites = Sites,
        Layout = EraLayouts.Known("2.6.24-i386-pae-highpte"),
        Defines = """
            .set lguest_data, 0xc0412340
            .globl lguest_data
            .set vcpu_info, 0xc0434560
            """,
        More = """
            lguest_init: ret
            lguest_iret: ret
            lguest_read_cr2: ret
            lguest_write_cr3: ret
            lguest_clts: ret
            lguest_load_gdt: ret
            lguest_load_tr_desc: ret
            lguest_set_pte: ret
            lguest_pte_update: ret
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
            hypercall_page: .zero 1024
            xen_sched_clock: ret
            xen_apic_write: ret
            xen_read_cr2: ret
            xen_write_cr3: ret
            xen_load_gdt: ret
            xen_alloc_pt: ret
            xen_set_pte: ret
            xen_pte_val: ret
            """,
    };

    private static readonly BootMachine s_machine = new() { Nops = NopStyle.Intel };

    [Fact]
    public void The_order_of_the_slots_is_proved_by_the_functions_in_six_tables()
    {
        KernelImage image = s_kernel.Open();
        Assert.Equal("linux-2.6.24", image.Era.Name);

        // What shifts with HIGHPTE no site here goes through.
        Assert.Equal("2.6.24-i386-pae", image.Layout.Name);
        Assert.Equal(["2.6.24-i386-pae-highpte"], image.LayoutsAlike);
        Assert.True(image.Symbols!.TryGetAddress("pv_mmu_ops", out VirtualAddress mmu));
        Assert.Equal(mmu + 4 * 18, image.SlotWords[73]);
    }

    [Fact]
    public void Without_symbols_each_table_is_found_by_its_own_sites_and_those_without_sites_stay_unknown()
    {
        KernelImage named = s_kernel.Open();

        // That a function gives its argument back is no proof of which one it is: with PAE or without cannot be told.
        PatchDiagnostic refused = s_kernel.OpenError(KernelDiagnosticCodes.LayoutUnknown, symbols: false);
        Assert.Contains("2.6.24-i386-nopae, 2.6.24-i386-pae,", refused.Found, StringComparison.Ordinal);
        var given = new KernelOptions { Layout = named.Layout };
        KernelImage image = s_kernel.Open(given, symbols: false);
        Assert.Null(image.Symbols);
        Assert.Equal("linux-2.6.24", image.Era.Name);
        Assert.Equal(named.SlotWords.Skip(5), image.SlotWords.Skip(5));
        Assert.All(image.SlotWords.Take(5), w => Assert.True(w.IsZero)); // pv_init_ops
        s_kernel.MustBecome("native", s_machine, given, symbols: false);
    }

    [Theory]
    [InlineData("native")]
    [InlineData("lguest")]
    [InlineData("xen")]
    public void Sites_become_what_each_backend_of_the_time_made_of_them(string backend) =>
        s_kernel.MustBecome(backend, s_machine with { Backend = backend });
}
