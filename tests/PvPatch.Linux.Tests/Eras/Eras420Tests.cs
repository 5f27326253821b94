using PvPatch.Linux.Files;
using PvPatch.Machine;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>4.20 to 5.12: one table, records without clobbers at assembly sites, nops chosen by processor.</summary>
public sealed class Eras420Tests
{
    private const string Sites420 = """
        type | clobbers | original | native | k8 | kvm | xen
        39 | 1 | call *pv_ops+8*39 | cli; p6 | cli; k6 | cli; p6 | call xen_irq_disable_direct; p2
        40 | 1 | call *pv_ops+8*40 | sti; p6 | sti; k6 | sti; p6 | call xen_irq_enable_direct; p2
        37 | 1 | call *pv_ops+8*37 | pushf; pop %rax; p5 | pushf; pop %rax; k5 | pushf; pop %rax; p5 | call xen_save_fl_direct; p2
        38 | 1 | call *pv_ops+8*38 | push %rdi; popf; p5 | push %rdi; popf; k5 | push %rdi; popf; p5 | call xen_restore_fl_direct; p2
        40 | - | call *pv_ops+8*40(%rip) | sti; p5 | sti; k5 | sti; p5 | call xen_irq_enable_direct; p1
        33 | - | jmp *pv_ops+8*33(%rip) | jmp native_iret; p1 | jmp native_iret; k1 | jmp native_iret; p1 | jmp xen_iret; p1
        34 | - | swapgs | swapgs | swapgs | swapgs | p3
        32 | - | jmp *pv_ops+8*32(%rip) | swapgs; sysretq | swapgs; sysretq | swapgs; sysretq | jmp xen_sysret64; p1
        25 | 0x1ff | call *pv_ops+8*25 | wbinvd; p5 | wbinvd; k5 | wbinvd; p5 | call native_wbinvd; p2
        50 | 0x1ff | call *pv_ops+8*50 | call native_write_cr2; p2 | call native_write_cr2; k2 | call native_write_cr2; p2 | call xen_write_cr2; p2
        51 | 0x1ff | call *pv_ops+8*51 | mov %cr3, %rax; p4 | mov %cr3, %rax; k4 | mov %cr3, %rax; p4 | call xen_read_cr3; p2
        52 | 0x1ff | call *pv_ops+8*52 | mov %rdi, %cr3; p4 | mov %rdi, %cr3; k4 | mov %rdi, %cr3; p4 | call xen_write_cr3; p2
        57 | 0x1ff | call *pv_ops+8*57 | p7 | k7 | p7 | call xen_alloc_pte; p2
        60 | 0x1ff | call *pv_ops+8*60 | p7 | k7 | p7 | ud2; p5
        65 | 0x1ff | call *pv_ops+8*65 | call native_set_pte; p2 | call native_set_pte; k2 | call native_set_pte; p2 | call xen_set_pte; p2
        70 | 1 | call *pv_ops+8*70 | mov %rdi, %rax; p4 | mov %rdi, %rax; k4 | mov %rdi, %rax; p4 | call __raw_callee_save_xen_pte_val; p2
        79 | 0x1ff | call *pv_ops+8*79 | call native_set_p4d; p2 | call native_set_p4d; k2 | call native_set_p4d; p2 | call xen_set_p4d; p2
        88 | 1 | call *pv_ops+8*88 | movb $0, (%rdi); p4 | movb $0, (%rdi); k4 | call __raw_callee_save___pv_queued_spin_unlock; p2 | call __raw_callee_save___pv_queued_spin_unlock; p2
        91 | 1 | call *pv_ops+8*91 | xor %eax, %eax; p5 | xor %eax, %eax; k5 | call __raw_callee_save___kvm_vcpu_is_preempted; p2 | call __raw_callee_save_xen_vcpu_stolen; p2
        """;

    private const string Guests = """
        kvm_guest_init: ret
        kvm_wait: ret
        kvm_kick_cpu: ret
        __raw_callee_save___kvm_vcpu_is_preempted: ret
        __pv_queued_spin_lock_slowpath: ret
        __raw_callee_save___pv_queued_spin_unlock: ret
        xen_start_kernel: ret
        xen_irq_disable_direct: ret
        xen_irq_enable_direct: ret
        xen_save_fl_direct: ret
        xen_restore_fl_direct: ret
        xen_iret: ret
        xen_sysret64: ret
        xen_write_cr2: ret
        xen_read_cr3: ret
        xen_write_cr3: ret
        xen_alloc_pte: ret
        xen_set_pte: ret
        xen_set_p4d: ret
        __raw_callee_save_xen_pte_val: ret
        __raw_callee_save_xen_vcpu_stolen: ret
        """;

    private const string Sites510 = """
        type | clobbers | original | native | kvm
        37 | 1 | call *pv_ops+8*37 | cli; p6 | cli; p6
        38 | - | call *pv_ops+8*38(%rip) | sti; p5 | sti; p5
        32 | - | jmp *pv_ops+8*32(%rip) | jmp native_iret; p1 | jmp native_iret; p1
        31 | - | jmp *pv_ops+8*31(%rip) | swapgs; sysretq | swapgs; sysretq
        47 | 1 | call *pv_ops+8*47 | mov %cr2, %rax; p4 | mov %cr2, %rax; p4
        55 | 0x1ff | call *pv_ops+8*55 | p7 | p7
        63 | 0x1ff | call *pv_ops+8*63 | call native_set_pte; p2 | call native_set_pte; p2
        67 | 1 | call *pv_ops+8*67 | mov %rdi, %rax; p4 | mov %rdi, %rax; p4
        85 | 1 | call *pv_ops+8*85 | movb $0, (%rdi); p4 | call __raw_callee_save___pv_queued_spin_unlock; p2
        86 | 0x1ff | call *pv_ops+8*86 | p7 | call kvm_wait; p2
        """;

    // Xen's cpu slots, 3 to 36: what no site here goes through is left 0.
    private const string XenCpuOps = """
        .globl xen_cpu_ops
        xen_cpu_ops:
        .zero 8*22
        .quad native_wbinvd
        .zero 8*6
        .quad xen_sysret64, xen_iret, _paravirt_nop, 0, 0
        """;

    private static readonly EraKernel s_kernel420 = new()
    {
        Bits = 64,
        Sites = Sites420,
        Layout = EraLayouts.Known("4.20-x86-64-5level"),
        OneTable = "pv_ops",
        More = Guests,
        MoreData = XenCpuOps,
    };

    private static readonly EraKernel s_kernel510 = new()
    {
        Bits = 64,
        Sites = Sites510,
        Layout = EraLayouts.Known("5.10.89-x86-64-5level"),
        OneTable = "pv_ops",
        More = Guests
    };

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void The_order_is_proved_and_tells_the_era(bool symbols)
    {
        KernelImage image = s_kernel420.Open(symbols: symbols);
        Assert.Equal(("linux-4.20", "4.20-5.2-x86-64-5level"), (image.Era.Name, image.Layout.Name));
        image = s_kernel510.Open(symbols: symbols);
        Assert.Equal(("linux-5.10", "5.10.89-x86-64-5level"), (image.Era.Name, image.Layout.Name));
    }

    [Fact]
    public void The_last_record_ends_after_its_length()
    {
        var kernel = new EraKernel
        {
            Bits = 64,
            Sites = Sites420 + "\n32 | - | jmp *pv_ops+8*32(%rip) | = | = | = | =",
            Layout = s_kernel420.Layout,
            OneTable = "pv_ops"
        };
        Assert.True(kernel.Link().TryGetSection(".parainstructions", out ElfSection? section));
        Assert.Equal(10u, section.Size % 16);
        Assert.Equal(20, kernel.Open().Sites.Count);
    }

    [Fact]
    public void Sites_become_what_each_backend_made_of_them()
    {
        s_kernel420.MustBecome("native", new BootMachine());
        s_kernel420.MustBecome("native", new BootMachine(), symbols: false);
        s_kernel420.MustBecome("k8", new BootMachine { Nops = NopStyle.K8 });
        s_kernel420.MustBecome("kvm", new BootMachine { Backend = KvmBackend.Name, Cpus = 2 });
        s_kernel420.MustBecome("xen", new BootMachine { Backend = XenBackend.Name, Cpus = 2 });
        s_kernel510.MustBecome("native", new BootMachine());
        s_kernel510.MustBecome("kvm", new BootMachine { Backend = KvmBackend.Name, Cpus = 2 });
    }
}
