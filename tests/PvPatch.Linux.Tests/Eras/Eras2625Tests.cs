using PvPatch.Linux.Files;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>2.6.25 and 2.6.26: x86-64 too, with assembly sites through absolute addresses and short last records.</summary>
public sealed class Eras2625Tests
{
    private const string Sites64 = """
        type | clobbers | original | p6 | k8 | kvm
        49 | 1 | push %rdi; call *pv_irq_ops+8*3(%rip); pop %rdi | cli; p7 | cli; k7 | cli; p7
        50 | 0x1ff | push %rax; push %rdi; push %rcx; push %rdx; call *%cs:pv_irq_ops+8*4; pop %rdx; pop %rcx; pop %rdi; pop %rax | sti; p8; p7 | sti; k8; k7 | sti; p8; p7
        43 | 0 | push %rax; push %rdi; push %rcx; push %rdx; call *pv_cpu_ops+8*33; pop %rdx; pop %rcx; pop %rdi; pop %rax | swapgs; p8; p4 | swapgs; k8; k4 | swapgs; p8; p4
        42 | 0 | jmp *%cs:pv_cpu_ops+8*32 | iretq; p6 | iretq; k6 | iretq; p6
        41 | 0 | jmp *%cs:pv_cpu_ops+8*31 | = | = | =
        47 | 1 | push %rdi; call *pv_irq_ops+8*1(%rip); pop %rdi | pushf; pop %rax; p6 | pushf; pop %rax; k6 | pushf; pop %rax; p6
        48 | 1 | push %rdi; call *pv_irq_ops+8*2(%rip); pop %rdi | push %rdi; popf; p6 | push %rdi; popf; k6 | push %rdi; popf; p6
        61 | 0x1ff | call *pv_mmu_ops+8*2(%rip) | mov %cr2, %rax; p3 | mov %cr2, %rax; k3 | mov %cr2, %rax; p3
        63 | 0x1ff | call *pv_mmu_ops+8*4(%rip) | mov %cr3, %rax; p3 | mov %cr3, %rax; k3 | mov %cr3, %rax; p3
        64 | 0x1ff | call *pv_mmu_ops+8*5(%rip) | mov %rdi, %cr3; p3 | mov %rdi, %cr3; k3 | mov %rdi, %cr3; p3
        70 | 0x1ff | call *pv_mmu_ops+8*11(%rip) | invlpg (%rdi); p3 | invlpg (%rdi); k3 | invlpg (%rdi); p3
        12 | 0x1ff | call *pv_cpu_ops+8*2(%rip) | clts; p4 | clts; k4 | clts; p4
        33 | 0x1ff | call *pv_cpu_ops+8*23(%rip) | wbinvd; p4 | wbinvd; k4 | wbinvd; p4
        34 | 0x1ff | call *pv_cpu_ops+8*24(%rip) | call native_io_delay; p1 | call native_io_delay; k1 | call kvm_io_delay; p1
        35 | 0x1ff | call *pv_cpu_ops+8*25(%rip) | call native_cpuid; p1 | call native_cpuid; k1 | call native_cpuid; p1
        73 | 0x1ff | call *pv_mmu_ops+8*14(%rip) | p6 | k6 | p6
        77 | 0x1ff | call *pv_mmu_ops+8*18(%rip) | call native_set_pte; p1 | call native_set_pte; k1 | call kvm_set_pte; p1
        77 | 0xff | call *pv_mmu_ops+8*18(%rip) | = | = | =
        77 | 0x1ff | call *(%rax) | = | = | =
        82 | 0x1ff | call *pv_mmu_ops+8*23(%rip) | call native_pte_val; p1 | call native_pte_val; k1 | call native_pte_val; p1
        91 | 0x1ff | call *pv_mmu_ops+8*32(%rip) | ud2; p4 | ud2; k4 | call kvm_set_pgd; p1
        92 | 0x1ff | call *pv_mmu_ops+8*33(%rip) | p6 | k6 | call kvm_enter_lazy_mmu; p1
        """;

    private static readonly EraKernel s_kernel64 = new()
    {
        Bits = 64,
        Sites = Sites64,
        Layout = EraLayouts.Known("2.6.25-x86-64"),
        MoreData = """

            .globl linux_banner
            linux_banner: .ascii "Linux version 2.6.25.20 (maker@place) #1\n"
            """,
        Words = new() { ["mmu.set_pgd"] = "0" },
        More = """
            kvm_guest_init: ret
            kvm_io_delay: ret
            kvm_set_pte: ret
            kvm_set_pgd: ret
            kvm_enter_lazy_mmu: ret
            kvm_leave_lazy_mmu: ret
            """,
    };

    // As a user would write it for a kernel that is none of those known.
    private static readonly OpsLayout s_layout32 = EraLayouts.Read("""
        # 2.6.26 i386 without local APIC, as far as the kernel at hand uses it
        bits 32
        0 init.patch
        1 init.banner
        2 time.sched_clock
        3 cpu.clts
        4 cpu.load_gdt
        cpu.irq_enable_sysexit jump
        cpu.iret
        irq.init_IRQ
        irq.save_fl
        irq.restore_fl
        irq.irq_disable
        irq.irq_enable
        mmu.read_cr2
        mmu.set_pte
        mmu.release_pte
        """);

    private const string Sites32 = """
        type | clobbers | original | native
        10 | 1 | push %ecx; push %edx; call *pv_irq_ops+4*3; pop %edx; pop %ecx | cli; p8; p1
        11 | 7 | push %eax; push %edi; push %ecx; push %edx; call *%cs:pv_irq_ops+4*4; pop %edx; pop %ecx; pop %edi; pop %eax | sti; p8; p6
        6 | 0 | jmp *%cs:pv_cpu_ops+4*3 | iret; p6
        5 | 0 | jmp *%cs:pv_cpu_ops+4*2 | sti; sysexit; p4
        8 | 1 | push %ecx; push %edx; call *pv_irq_ops+4*1; pop %edx; pop %ecx | pushf; pop %eax; p8
        12 | 7 | call *pv_mmu_ops | mov %cr2, %eax; p3
        13 | 7 | call *pv_mmu_ops+4*1 | call native_set_pte; p1
        14 | 7 | call *pv_mmu_ops+4*2 | p6
        4 | 7 | call *pv_cpu_ops+4 | call native_load_gdt; p1
        """;

    private static readonly EraKernel s_kernel32 = new() { Bits = 32, Sites = Sites32, Layout = s_layout32 };

    [Fact]
    public void The_era_and_the_order_are_told_by_sites_and_functions_alone()
    {
        foreach (bool symbols in (bool[])[true, false])
        {
            KernelImage image = s_kernel64.Open(symbols: symbols);
            Assert.Equal(("linux-2.6.25", "2.6.25-x86-64"), (image.Era.Name, image.Layout.Name));
        }
    }

    [Fact]
    public void The_last_record_ends_after_its_clobbers()
    {
        Assert.True(s_kernel64.Link().TryGetSection(".parainstructions", out ElfSection? section));
        Assert.Equal(12u, section.Size % 16);
        Assert.Equal(22, s_kernel64.Open().Sites.Count);
    }

    [Fact]
    public void A_native_boot_inlines_by_slot_and_calls_where_all_registers_may_be_destroyed()
    {
        s_kernel64.MustBecome("p6", new BootMachine { Nops = NopStyle.P6 });
        s_kernel64.MustBecome("k8", new BootMachine { Nops = NopStyle.K8 }, symbols: false);
    }

    [Fact]
    public void A_KVM_guest_updates_page_tables_by_its_own_functions() => s_kernel64.MustBecome(
        "kvm", new BootMachine { Backend = KvmBackend.Name, KvmFeatures = KvmFeatures.NopIoDelay | KvmFeatures.MmuOp });

    [Fact]
    public void A_kernel_of_another_configuration_needs_a_layout_and_says_so()
    {
        PatchDiagnostic error = s_kernel32.OpenError(KernelDiagnosticCodes.LayoutUnknown);
        Assert.Contains("--layout", error.Help, StringComparison.Ordinal);
        var given = new KernelOptions { Layout = s_layout32 };
        Assert.Equal("linux-2.6.25", s_kernel32.Open(given).Era.Name);
        s_kernel32.MustBecome("native", new BootMachine(), given);
        s_kernel32.MustBecome("native", new BootMachine(), given, symbols: false);
    }
}
