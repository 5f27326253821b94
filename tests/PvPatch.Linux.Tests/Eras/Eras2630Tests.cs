using PvPatch.Linux.Eras;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// 2.6.30 to 4.1: callee-save slots; C sites of 7 bytes through absolute addresses on x86-64; the clobber test leaves most of them to Xen
/// indirect.
/// </summary>
public sealed class Eras2630Tests
{
    private const string Sites2632 = """
        type | clobbers | original | native | k8 | kvm | xen | xen-stable
        48 | 1 | call *pv_irq_ops+8*2 | cli; p6 | cli; k6 | cli; p6 | = | call xen_irq_disable_direct; p2
        49 | 1 | call *pv_irq_ops+8*3 | sti; p6 | sti; k6 | sti; p6 | = | call xen_irq_enable_direct; p2
        46 | 1 | call *pv_irq_ops | pushf; pop %rax; p5 | pushf; pop %rax; k5 | pushf; pop %rax; p5 | = | call xen_save_fl_direct; p2
        47 | 1 | call *pv_irq_ops+8 | push %rdi; popf; p5 | push %rdi; popf; k5 | push %rdi; popf; p5 | = | call xen_restore_fl_direct; p2
        48 | 0x1ff | call *pv_irq_ops+8*2(%rip) | cli; p5 | cli; k5 | cli; p5 | call xen_irq_disable_direct; p1 | call xen_irq_disable_direct; p1
        49 | 0x1fe | push %rax; call *pv_irq_ops+8*3(%rip); pop %rax | sti; p7 | sti; k7 | sti; p7 | = | call xen_irq_enable_direct; p3
        42 | 0 | jmp *pv_cpu_ops+8*39(%rip) | iretq; p4 | iretq; k4 | iretq; p4 | jmp xen_iret; p1 | jmp xen_iret; p1
        39 | 0 | jmp *pv_cpu_ops+8*36(%rip) | swapgs; sti; sysexit | swapgs; sti; sysexit | swapgs; sti; sysexit | jmp xen_sysexit; p1 | jmp xen_sysexit; p1
        40 | 0 | jmp *pv_cpu_ops+8*37(%rip) | swapgs; sysretq | swapgs; sysretq | swapgs; sysretq | jmp xen_sysret64; p1 | jmp xen_sysret64; p1
        41 | 0 | jmp *pv_cpu_ops+8*38(%rip) | swapgs; sysretl; p1 | swapgs; sysretl; k1 | swapgs; sysretl; p1 | jmp xen_sysret32; p1 | jmp xen_sysret32; p1
        43 | 0 | call *pv_cpu_ops+8*40(%rip) | swapgs; p3 | swapgs; k3 | swapgs; p3 | p6 | p6
        43 | 0 | swapgs | swapgs | swapgs | swapgs | p3 | p3
        52 | 0 | call *pv_irq_ops+8*6(%rip) | p6 | k6 | p6 | = | call xen_adjust_exception_frame; p1
        5 | 0x1ff | call *pv_cpu_ops+8*2 | clts; p5 | clts; k5 | clts; p5 | call xen_clts; p2 | call xen_clts; p2
        29 | 0x1ff | call *pv_cpu_ops+8*26 | wbinvd; p5 | wbinvd; k5 | wbinvd; p5 | call native_wbinvd; p2 | call native_wbinvd; p2
        14 | 0x1ff | call *pv_cpu_ops+8*11 | call native_load_gdt; p2 | call native_load_gdt; k2 | call native_load_gdt; p2 | call xen_load_gdt; p2 | call xen_load_gdt; p2
        54 | 0x1ff | call *pv_mmu_ops | mov %cr2, %rax; p4 | mov %cr2, %rax; k4 | mov %cr2, %rax; p4 | call xen_read_cr2; p2 | call xen_read_cr2; p2
        57 | 0x1ff | call *pv_mmu_ops+8*3 | mov %rdi, %cr3; p4 | mov %rdi, %cr3; k4 | mov %rdi, %cr3; p4 | call xen_write_cr3; p2 | call xen_write_cr3; p2
        63 | 0x1ff | call *pv_mmu_ops+8*9 | invlpg (%rdi); p4 | invlpg (%rdi); k4 | invlpg (%rdi); p4 | call xen_flush_tlb_single; p2 | call xen_flush_tlb_single; p2
        67 | 0x1ff | call *pv_mmu_ops+8*13 | p7 | k7 | p7 | call xen_alloc_pte; p2 | call xen_alloc_pte; p2
        74 | 0x1ff | call *pv_mmu_ops+8*20 | call native_set_pte; p2 | call native_set_pte; k2 | call kvm_set_pte; p2 | call xen_set_pte; p2 | call xen_set_pte; p2
        81 | 1 | call *pv_mmu_ops+8*27 | mov %rdi, %rax; p4 | mov %rdi, %rax; k4 | mov %rdi, %rax; p4 | = | call __raw_callee_save_xen_pte_val; p2
        90 | 0x1ff | call *pv_mmu_ops+8*36 | call native_set_pgd; p2 | call native_set_pgd; k2 | call native_set_pgd; p2 | ud2; p5 | ud2; p5
        96 | 0x1ff | call *pv_lock_ops+8*2 | call native_spin_lock; p2 | call native_spin_lock; k2 | call native_spin_lock; p2 | call xen_spin_lock; p2 | call xen_spin_lock; p2
        """;

    private const string Guests = """

        kvm_guest_init: ret
        kvm_set_pte: ret
        xen_start_kernel: ret
        xen_patch: ret
        xen_irq_disable_direct: movb $1, %gs:0xc841
        xen_irq_disable_direct_end: ret
        xen_irq_enable_direct: movb $0, %gs:0xc841; testb $0xff, %gs:0xc840; je 1f; call check_events; 1:
        xen_irq_enable_direct_end: ret
        xen_save_fl_direct: testb $0xff, %gs:0xc841; setz %ah; add %ah, %ah
        xen_save_fl_direct_end: ret
        xen_restore_fl_direct: test $0x200, %di; setz %gs:0xc841; cmpw $1, %gs:0xc840; je 1f; call check_events; 1:
        xen_restore_fl_direct_end: ret
        check_events: ret
        xen_iret: ret
        xen_sysexit: ret
        xen_sysret64: ret
        xen_sysret32: ret
        xen_adjust_exception_frame: ret
        xen_clts: ret
        xen_load_gdt: ret
        xen_read_cr2: ret
        xen_write_cr3: ret
        xen_flush_tlb_single: ret
        xen_alloc_pte: ret
        xen_set_pte: ret
        __raw_callee_save_xen_pte_val: ret
        xen_spin_lock: ret
        """;

    private static EraKernel Kernel64(string patcher) => new()
    {
        Bits = 64,
        Sites = Sites2632,
        Layout = EraLayouts.Known("2.6.32-x86-64"),
        Words = new() { ["lock.spin_lock"] = "native_spin_lock" },
        More = patcher + Guests,
    };

    private static readonly EraKernel s_kernel64 = Kernel64(EraPatchers.WithClobberTest);

    private static readonly EraKernel s_stable64 = Kernel64(EraPatchers.WithoutClobberTest);

    private static readonly OpsLayout s_layout32 = EraLayouts.Read("""
        bits 32
        init.patch
        time.sched_clock
        cpu.clts
        cpu.load_gdt
        cpu.irq_enable_sysexit
        cpu.usergs_sysret32
        cpu.iret
        irq.save_fl*
        irq.restore_fl*
        irq.irq_disable*
        irq.irq_enable*
        irq.safe_halt
        mmu.read_cr2
        mmu.alloc_pte
        mmu.set_pte
        mmu.pte_val*
        lock.spin_lock
        """);

    private const string Sites32 = """
        type | clobbers | original | native | lguest | xen
        9 | 5 | call *pv_irq_ops+4*2 | cli; p5 | = | =
        10 | 5 | call *pv_irq_ops+4*3 | sti; p5 | = | =
        7 | 5 | call *pv_irq_ops | pushf; pop %eax; p4 | mov lguest_data, %eax; p1 | =
        8 | 5 | call *pv_irq_ops+4 | push %eax; popf; p4 | = | =
        9 | 0xf | call *%cs:pv_irq_ops+4*2 | cli; p6 | call __raw_callee_save_irq_disable; p2 | call xen_irq_disable_direct; p2
        9 | 1 | push %edi; push %edx; call *%cs:pv_irq_ops+4*2; pop %edx; pop %edi | cli; p8; p2 | movl $0, lguest_data; p1 | movb $1, %fs:vcpu_info+1; p3
        10 | 0 | push %eax; push %edi; push %edx; call *%cs:pv_irq_ops+4*3; pop %edx; pop %edi; pop %eax | sti; p8; p4 | = | =
        9 | 0 | push %eax; push %edi; push %edx; call *%cs:pv_irq_ops+4*2; pop %edx; pop %edi; pop %eax | cli; p8; p4 | movl $0, lguest_data; p3 | movb $1, %fs:vcpu_info+1; p5
        6 | 0 | jmp *%cs:pv_cpu_ops+4*4 | iret; p6 | jmp lguest_iret; p2 | jmp xen_iret; p2
        4 | 0 | jmp *%cs:pv_cpu_ops+4*2 | sti; sysexit; p4 | jmp native_irq_enable_sysexit; p2 | jmp xen_sysexit; p2
        2 | 0xf | call *pv_cpu_ops | clts; p4 | call lguest_clts; p1 | call native_clts; p1
        3 | 0xf | call *pv_cpu_ops+4 | call native_load_gdt; p1 | call lguest_load_gdt; p1 | call xen_load_gdt; p1
        3 | 7 | call *pv_cpu_ops+4 | = | = | =
        13 | 0xf | call *pv_mmu_ops+4 | p6 | p6 | call xen_alloc_pte; p1
        14 | 0xf | call *pv_mmu_ops+4*2 | call native_set_pte; p1 | call lguest_set_pte; p1 | call xen_set_pte; p1
        15 | 5 | call *pv_mmu_ops+4*3 | p6 | p6 | =
        16 | 0xf | call *pv_lock_ops | call native_spin_lock; p1 | call native_spin_lock; p1 | call xen_spin_lock; p1
        """;

    private static readonly EraKernel s_kernel32 = new()
    {
        Bits = 32,
        Sites = Sites32,
        Layout = s_layout32,
        Words = new() { ["lock.spin_lock"] = "native_spin_lock" },
        Defines = """
            .set lguest_data, 0xc0412340
            .globl lguest_data
            .set vcpu_info, 0xc0434560
            """,
        More = EraPatchers.WithClobberTest + """

            lguest_init: ret
            lg_irq_enable: ret
            lg_restore_fl: ret
            __raw_callee_save_irq_disable: ret
            __raw_callee_save_save_fl: ret
            lguest_iret: ret
            lguest_clts: ret
            lguest_load_gdt: ret
            lguest_set_pte: ret
            xen_start_kernel: ret
            xen_patch: ret
            xen_irq_disable_direct: movb $1, %fs:vcpu_info+1
            xen_irq_disable_direct_end: ret
            xen_irq_enable_direct: movb $0, %fs:vcpu_info+1; testb $0xff, %fs:vcpu_info; je 1f; call check_events; 1:
            xen_irq_enable_direct_end: ret
            xen_save_fl_direct: testb $0xff, %fs:vcpu_info+1; setz %ah; add %ah, %ah
            xen_save_fl_direct_end: ret
            xen_restore_fl_direct: test $2, %ah; setz %fs:vcpu_info+1; cmpw $1, %fs:vcpu_info; jne 1f; call check_events; 1:
            xen_restore_fl_direct_end: ret
            check_events: ret
            xen_iret: ret
            xen_sysexit: ret
            xen_load_gdt: ret
            xen_alloc_pte: ret
            xen_set_pte: ret
            __raw_callee_save_xen_pte_val: ret
            xen_spin_lock: ret
            """,
    };

    private static readonly BootMachine s_xen = new() { Backend = XenBackend.Name, Cpus = 2 };

    [Fact]
    public void The_order_is_proved_and_the_era_told_by_the_code_of_the_patcher()
    {
        KernelImage image = s_kernel64.Open();
        Assert.Equal(("linux-2.6.30", "2.6.32-2.6.36-x86-64"), (image.Era.Name, image.Layout.Name));
        Assert.Equal("linux-2.6.30-stable", s_stable64.Open().Era.Name);
    }

    [Fact]
    public void Without_symbols_only_whether_clobbers_are_looked_at_is_asked_for()
    {
        PatchDiagnostic error = s_kernel64.OpenError(KernelDiagnosticCodes.EraUnknown, symbols: false);
        Assert.Equal("linux-2.6.30 or linux-2.6.30-stable", error.Expected);
        Assert.Contains("System.map", error.Help, StringComparison.Ordinal);
        var given = new KernelOptions { Era = KernelEra.Linux2630 };
        Assert.Equal("2.6.32-2.6.36-x86-64", s_kernel64.Open(given, symbols: false).Layout.Name);
        s_kernel64.MustBecome("native", new BootMachine(), given, symbols: false);
    }

    [Theory]
    [InlineData("native", "native")]
    [InlineData("k8", "native")]
    [InlineData("kvm", "kvm")]
    [InlineData("xen", "xen")]
    public void Sites_of_a_64_bit_kernel_become_what_each_backend_made_of_them(string column, string backend) =>
        s_kernel64.MustBecome(column, new BootMachine
        {
            Backend = backend,
            Cpus = 2,
            Nops = column == "k8" ? NopStyle.K8 : NopStyle.P6,
            KvmFeatures = KvmFeatures.MmuOp,
        });

    [Fact]
    public void A_patcher_that_does_not_look_at_clobbers_calls_directly() => s_stable64.MustBecome("xen-stable", s_xen);

    [Fact]
    public void Sites_of_a_32_bit_kernel_take_what_fits()
    {
        var given = new KernelOptions { Layout = s_layout32 };
        Assert.Equal("linux-2.6.30", s_kernel32.Open(given).Era.Name);
        s_kernel32.MustBecome("native", new BootMachine(), given);
        s_kernel32.MustBecome("lguest", new BootMachine { Backend = LguestBackend.Name }, given);
        s_kernel32.MustBecome("xen", s_xen, given);
    }
}
