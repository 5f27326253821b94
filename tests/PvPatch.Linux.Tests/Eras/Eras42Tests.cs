using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>3.6, and 4.2 to 4.19: steal time, queued spinlocks, and whether the clobber word is looked at.</summary>
public sealed class Eras42Tests
{
    private const string Sites36 = """
        type | clobbers | original | native | kvm
        47 | 1 | call *pv_irq_ops+8*2 | cli; p6 | cli; p6
        48 | 0x1fe | push %rax; call *pv_irq_ops+8*3(%rip); pop %rax | sti; p7 | sti; p7
        46 | 1 | call *pv_irq_ops+8 | push %rdi; popf; p5 | push %rdi; popf; p5
        41 | 0 | jmp *pv_cpu_ops+8*37(%rip) | iretq; p4 | iretq; p4
        42 | 0 | swapgs | swapgs | swapgs
        2 | 0x1ff | call *pv_time_ops+8 | call native_steal_clock; p2 | call kvm_steal_clock; p2
        31 | 0x1ff | call *pv_cpu_ops+8*27 | call native_io_delay; p2 | call kvm_io_delay; p2
        73 | 0x1ff | call *pv_mmu_ops+8*20 | call native_set_pte_at; p2 | call native_set_pte_at; p2
        86 | 0x1ff | call *pv_mmu_ops+8*33 | call native_set_pud; p2 | call native_set_pud; p2
        89 | 1 | call *pv_mmu_ops+8*36 | mov %rdi, %rax; p4 | mov %rdi, %rax; p4
        """;

    private static readonly EraKernel s_kernel36 = new()
    {
        Bits = 64,
        Sites = Sites36,
        Layout = EraLayouts.Known("3.6-x86-64"),
        More = EraPatchers.WithClobberTest + """

            kvm_guest_init: ret
            kvm_io_delay: ret
            kvm_steal_clock: ret
            """,
    };

    private const string Sites48 = """
        type | clobbers | original | native | kvm | kvm-rh | xen | xen-rh
        42 | 1 | call *pv_irq_ops+8*2 | cli; p6 | cli; p6 | cli; p6 | = | call xen_irq_disable_direct; p2
        43 | 0x1ff | call *pv_irq_ops+8*3(%rip) | sti; p5 | sti; p5 | sti; p5 | call xen_irq_enable_direct; p1 | call xen_irq_enable_direct; p1
        40 | 1 | call *pv_irq_ops | pushf; pop %rax; p5 | pushf; pop %rax; p5 | pushf; pop %rax; p5 | = | call xen_save_fl_direct; p2
        36 | 0 | jmp *pv_cpu_ops+8*33(%rip) | jmp native_iret; p1 | jmp native_iret; p1 | jmp native_iret; p1 | jmp xen_iret; p1 | jmp xen_iret; p1
        35 | 0 | jmp *pv_cpu_ops+8*32(%rip) | swapgs; sysretq | swapgs; sysretq | swapgs; sysretq | jmp xen_sysret64; p1 | jmp xen_sysret64; p1
        37 | 0 | call *pv_cpu_ops+8*34(%rip) | swapgs; p3 | swapgs; p3 | swapgs; p3 | p6 | p6
        37 | 0 | swapgs | swapgs | swapgs | swapgs | p3 | p3
        46 | 0 | call *pv_irq_ops+8*6(%rip) | p6 | p6 | p6 | = | call xen_adjust_exception_frame; p1
        5 | 0x1ff | call *pv_cpu_ops+8*2 | clts; p5 | clts; p5 | clts; p5 | call xen_clts; p2 | call xen_clts; p2
        28 | 0x1ff | call *pv_cpu_ops+8*25 | call native_io_delay; p2 | call kvm_io_delay; p2 | call kvm_io_delay; p2 | ud2; p5 | ud2; p5
        2 | 0x1ff | call *pv_time_ops+8 | call native_steal_clock; p2 | call kvm_steal_clock; p2 | call kvm_steal_clock; p2 | call native_steal_clock; p2 | call native_steal_clock; p2
        66 | 0x1ff | call *pv_mmu_ops+8*19 | call native_set_pte; p2 | call native_set_pte; p2 | call native_set_pte; p2 | call xen_set_pte; p2 | call xen_set_pte; p2
        73 | 1 | call *pv_mmu_ops+8*26 | mov %rdi, %rax; p4 | mov %rdi, %rax; p4 | mov %rdi, %rax; p4 | = | call __raw_callee_save_xen_pte_val; p2
        87 | 0x1ff | call *pv_lock_ops | call native_queued_spin_lock_slowpath; p2 | call __pv_queued_spin_lock_slowpath; p2 | call __pv_queued_spin_lock_slowpath; p2 | call __pv_queued_spin_lock_slowpath; p2 | call __pv_queued_spin_lock_slowpath; p2
        88 | 1 | call *pv_lock_ops+8 | movb $0, (%rdi); p4 | = | call __raw_callee_save___pv_queued_spin_unlock; p2 | = | call __raw_callee_save___pv_queued_spin_unlock; p2
        89 | 0x1ff | call *pv_lock_ops+8*2 | p7 | call kvm_wait; p2 | call kvm_wait; p2 | call xen_qlock_wait; p2 | call xen_qlock_wait; p2
        """;

    private static EraKernel Kernel48(string patcher) => new()
    {
        Bits = 64,
        Sites = Sites48,
        Layout = EraLayouts.Known("4.9-x86-64"),
        More = patcher + """

            kvm_guest_init: ret
            kvm_io_delay: ret
            kvm_steal_clock: ret
            kvm_wait: ret
            kvm_kick_cpu: ret
            __pv_queued_spin_lock_slowpath: ret
            __raw_callee_save___pv_queued_spin_unlock: ret
            xen_start_kernel: ret
            xen_irq_disable_direct: ret
            xen_irq_enable_direct: ret
            xen_save_fl_direct: ret
            xen_iret: ret
            xen_sysret64: ret
            xen_adjust_exception_frame: ret
            xen_clts: ret
            xen_set_pte: ret
            __raw_callee_save_xen_pte_val: ret
            xen_qlock_wait: ret
            xen_qlock_kick: ret
            """,
    };

    private static readonly EraKernel s_kernel49 = Kernel48(EraPatchers.WithClobberTest);

    private static readonly EraKernel s_kernel419 = Kernel48(EraPatchers.WithoutClobberTest);

    private static readonly BootMachine s_kvm = new() { Backend = KvmBackend.Name, Cpus = 2 };

    private static readonly BootMachine s_xen = new() { Backend = XenBackend.Name, Cpus = 2 };

    [Fact]
    public void Kernel_3_6_is_of_the_era_of_2_6_30_with_an_order_of_its_own()
    {
        KernelImage image = s_kernel36.Open();
        Assert.Equal(("linux-2.6.30", "3.6-3.7-x86-64"), (image.Era.Name, image.Layout.Name));
        s_kernel36.MustBecome("native", new BootMachine());
        s_kernel36.MustBecome("kvm", s_kvm);
    }

    [Fact]
    public void The_clobber_test_of_the_patcher_tells_4_2_from_4_19()
    {
        Assert.Equal(("linux-4.2", "4.9-x86-64"), (s_kernel49.Open().Era.Name, s_kernel49.Open().Layout.Name));
        Assert.Equal("linux-4.18rh", s_kernel419.Open().Era.Name);
        Assert.Equal("linux-4.2 or linux-4.18rh", Kernel48("").OpenError(KernelDiagnosticCodes.EraUnknown).Expected);
    }

    [Fact]
    public void Unlocking_is_inlined_while_the_slot_is_native()
    {
        s_kernel49.MustBecome("native", new BootMachine { Cpus = 2 });
        s_kernel419.MustBecome("native", new BootMachine { Cpus = 2 });
    }

    [Fact]
    public void With_the_clobber_test_callee_save_sites_stay_indirect()
    {
        s_kernel49.MustBecome("kvm", s_kvm);
        s_kernel49.MustBecome("xen", s_xen);
    }

    [Fact]
    public void Without_it_they_are_called()
    {
        s_kernel419.MustBecome("kvm-rh", s_kvm);
        s_kernel419.MustBecome("xen-rh", s_xen);
    }
}
