using PvPatch.Linux.Eras;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// 2.6.27 to 2.6.29: a table of lock slots, system call exits of their own; on x86-64 nine registers saved around assembly sites.
/// </summary>
public sealed class Eras2627Tests
{
    private static readonly OpsLayout s_layout64 = EraLayouts.Read("""
        bits 64
        init.patch
        time.sched_clock
        cpu.clts
        cpu.wbinvd
        cpu.irq_enable_sysexit
        cpu.usergs_sysret64
        cpu.usergs_sysret32
        cpu.iret
        cpu.swapgs
        irq.save_fl
        irq.restore_fl
        irq.irq_disable
        irq.irq_enable
        irq.adjust_exception_frame
        mmu.read_cr2
        mmu.write_cr3
        mmu.alloc_pte
        mmu.set_pte
        lock.spin_lock
        lock.spin_unlock
        """);

    private const string Push = "push %rax; push %rcx; push %rdx; push %rsi; push %rdi; push %r8; push %r9; push %r10; push %r11";

    private const string Pop = "pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rax";

    private const string Sites64 = $"""
        type | clobbers | original | native | xen
        11 | 1 | push %rdi; call *pv_irq_ops+8*2(%rip); pop %rdi | cli; p7 | =
        9 | 1 | push %rdi; call *pv_irq_ops(%rip); pop %rdi | pushf; pop %rax; p6 | =
        10 | 1 | push %rdi; call *pv_irq_ops+8(%rip); pop %rdi | push %rdi; popf; p6 | =
        12 | 0x1ff | {Push}; call *pv_irq_ops+8*3(%rip); {Pop} | sti; p8; p8; p8; p7 | call xen_irq_enable; p8; p8; p8; p3
        11 | 0 | {Push}; call *pv_irq_ops+8*2(%rip); {Pop} | cli; p8; p8; p8; p7 | =
        8 | 0 | {Push}; call *pv_cpu_ops+8*6(%rip); {Pop} | swapgs; p8; p8; p8; p5 | p8; p8; p8; p8
        7 | 0 | jmp *pv_cpu_ops+8*5(%rip) | iretq; p4 | jmp xen_iret; p1
        4 | 0 | jmp *pv_cpu_ops+8*2(%rip) | swapgs; sti; sysexit | jmp xen_sysexit; p1
        5 | 0 | jmp *pv_cpu_ops+8*3(%rip) | swapgs; sysretq | jmp xen_sysret64; p1
        6 | 0 | jmp *pv_cpu_ops+8*4(%rip) | swapgs; sysretl; p1 | jmp xen_sysret32; p1
        13 | 0 | call *pv_irq_ops+8*4(%rip) | p6 | =
        14 | 0x1ff | call *pv_mmu_ops(%rip) | mov %cr2, %rax; p3 | call xen_read_cr2; p1
        15 | 0x1ff | call *pv_mmu_ops+8*1(%rip) | mov %rdi, %cr3; p3 | call xen_write_cr3; p1
        16 | 0x1ff | call *pv_mmu_ops+8*2(%rip) | p6 | call xen_alloc_pte; p1
        17 | 0x1ff | call *pv_mmu_ops+8*3(%rip) | call native_set_pte; p1 | call xen_set_pte; p1
        18 | 0x1ff | call *pv_lock_ops(%rip) | call native_spin_lock; p1 | call xen_spin_lock; p1
        19 | 0x1ff | call *pv_lock_ops+8(%rip) | call native_spin_unlock; p1 | call xen_spin_unlock; p1
        """;

    private static readonly EraKernel s_kernel64 = new()
    {
        Bits = 64,
        Sites = Sites64,
        Layout = s_layout64,
        More = """
            xen_start_kernel: ret
            xen_patch: ret
            xen_irq_disable_direct: movb $1, 0xdeadbeef-0x100000000; ud2
            xen_irq_disable_direct_end: ret
            xen_irq_enable: ret
            xen_irq_disable: ret
            xen_save_fl: ret
            xen_restore_fl: ret
            xen_adjust_exception_frame: ret
            xen_iret: ret
            xen_sysexit: ret
            xen_sysret64: ret
            xen_sysret32: ret
            xen_read_cr2: ret
            xen_write_cr3: ret
            xen_alloc_pte: ret
            xen_set_pte: ret
            xen_spin_lock: ret
            xen_spin_unlock: ret
            """,
    };

    private static readonly KernelOptions s_given = new() { Layout = s_layout64 };

    [Fact]
    public void The_era_is_told_by_the_lengths_of_sites_and_the_lock_table()
    {
        Assert.Equal("linux-2.6.27", s_kernel64.Open(s_given).Era.Name);
        Assert.Equal("linux-2.6.27", s_kernel64.Open(s_given, symbols: false).Era.Name);
    }

    [Fact]
    public void A_native_boot_fills_32_bytes() => s_kernel64.MustBecome("native", new BootMachine(), s_given, symbols: false);

    [Fact]
    public void A_Xen_guest_whose_templates_only_hold_a_place_uses_none() =>
        s_kernel64.MustBecome("xen", new BootMachine { Backend = XenBackend.Name, Cpus = 2, Nops = NopStyle.P6 }, s_given);

    [Fact]
    public void The_era_can_be_said_and_a_wrong_one_is_refused()
    {
        Assert.Equal("linux-2.6.27", s_kernel64.Open(s_given with { Era = KernelEra.Linux2627 }).Era.Name);
        PatchDiagnostic error = s_kernel64.OpenError(KernelDiagnosticCodes.EraWrongSource, s_given with { Era = KernelEra.Linux612 });
        Assert.Contains("linux-2.6.27", error.Expected, StringComparison.Ordinal);
        s_kernel64.OpenError(KernelDiagnosticCodes.LayoutWrongBitness, new KernelOptions { Layout = EraLayouts.Known("2.6.24-i386-pae") });
    }
}
