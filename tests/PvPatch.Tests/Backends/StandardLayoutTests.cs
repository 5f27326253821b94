using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Tests.Backends;

/// <summary>Names, kinds and conventions of the standard layout against the slot lists of kernels.</summary>
public sealed class StandardLayoutTests
{
    // Every slot of the 64-bit kernels 2.6.25 to 7.x that a call site went through (* callee-save in the newest that has it).
    private const string Kernels64 = """
        time.sched_clock cpu.get_debugreg cpu.set_debugreg cpu.clts cpu.read_cr0 cpu.write_cr0 cpu.read_cr4_safe cpu.read_cr4
        cpu.write_cr4 cpu.read_cr8 cpu.write_cr8 cpu.load_tr_desc cpu.load_gdt cpu.load_idt cpu.store_gdt cpu.store_idt
        cpu.set_ldt cpu.store_tr cpu.load_tls cpu.write_ldt_entry cpu.write_gdt_entry cpu.write_idt_entry cpu.load_sp0
        cpu.set_iopl_mask cpu.wbinvd cpu.io_delay cpu.cpuid cpu.read_msr cpu.write_msr cpu.read_tsc cpu.read_pmc cpu.read_tscp
        cpu.irq_enable_syscall_ret cpu.iret cpu.swapgs cpu.lazy_mode.enter cpu.lazy_mode.leave irq.save_fl* irq.restore_fl*
        irq.irq_disable* irq.irq_enable* irq.safe_halt irq.halt mmu.read_cr2* mmu.write_cr2 mmu.read_cr3 mmu.write_cr3
        mmu.activate_mm mmu.dup_mmap mmu.exit_mmap mmu.flush_tlb_user mmu.flush_tlb_kernel mmu.flush_tlb_single
        mmu.flush_tlb_others mmu.alloc_pt mmu.alloc_pd mmu.alloc_pd_clone mmu.release_pt mmu.release_pd mmu.set_pte
        mmu.set_pte_at mmu.set_pmd mmu.pte_update mmu.pte_update_defer mmu.pte_val* mmu.make_pte* mmu.pgd_val* mmu.make_pgd*
        mmu.set_pud mmu.pmd_val* mmu.make_pmd* mmu.pud_val* mmu.make_pud* mmu.set_pgd mmu.lazy_mode.enter mmu.lazy_mode.leave
        cpu.load_gs_index cpu.alloc_ldt cpu.free_ldt cpu.rdmsr_regs cpu.wrmsr_regs cpu.irq_enable_sysexit cpu.usergs_sysret64
        cpu.usergs_sysret32 cpu.start_context_switch cpu.end_context_switch irq.adjust_exception_frame mmu.pgd_alloc
        mmu.pgd_free mmu.alloc_pte mmu.alloc_pmd mmu.alloc_pmd_clone mmu.alloc_pud mmu.release_pte mmu.release_pmd
        mmu.release_pud mmu.ptep_modify_prot_start mmu.ptep_modify_prot_commit mmu.set_fixmap lock.spin_is_locked
        lock.spin_is_contended lock.spin_lock lock.spin_lock_flags lock.spin_trylock lock.spin_unlock time.steal_clock
        mmu.set_pmd_at mmu.pmd_update mmu.pmd_update_defer cpu.read_msr_safe cpu.write_msr_safe mmu.lazy_mode.flush
        lock.queued_spin_lock_slowpath lock.queued_spin_unlock* lock.wait lock.kick mmu.flush_tlb_one_user mmu.tlb_remove_table
        mmu.alloc_p4d mmu.release_p4d mmu.set_p4d mmu.p4d_val* mmu.make_p4d* lock.vcpu_is_preempted* cpu.invalidate_io_bitmap
        cpu.update_io_bitmap mmu.flush_tlb_multi mmu.notify_page_enc_status_changed mmu.enter_mmap
        """;

    // The same of 2.6.24 for i386 with PAE and HIGHPTE, which had no callee-save slots yet.
    private const string Kernel32 = """
        time.sched_clock cpu.get_debugreg cpu.set_debugreg cpu.clts cpu.read_cr0 cpu.write_cr0 cpu.read_cr4_safe cpu.read_cr4
        cpu.write_cr4 cpu.load_tr_desc cpu.load_gdt cpu.load_idt cpu.store_gdt cpu.store_idt cpu.set_ldt cpu.store_tr
        cpu.load_tls cpu.write_ldt_entry cpu.write_gdt_entry cpu.write_idt_entry cpu.load_esp0 cpu.set_iopl_mask cpu.wbinvd
        cpu.io_delay cpu.cpuid cpu.read_msr cpu.write_msr cpu.read_tsc cpu.read_pmc cpu.irq_enable_sysexit cpu.iret
        cpu.lazy_mode.enter cpu.lazy_mode.leave irq.save_fl irq.restore_fl irq.irq_disable irq.irq_enable irq.safe_halt irq.halt
        mmu.read_cr2 mmu.write_cr2 mmu.read_cr3 mmu.write_cr3 mmu.activate_mm mmu.dup_mmap mmu.exit_mmap mmu.flush_tlb_user
        mmu.flush_tlb_kernel mmu.flush_tlb_single mmu.flush_tlb_others mmu.alloc_pt mmu.alloc_pd mmu.alloc_pd_clone
        mmu.release_pt mmu.release_pd mmu.set_pte mmu.set_pte_at mmu.set_pmd mmu.pte_update mmu.pte_update_defer
        mmu.set_pte_atomic mmu.set_pte_present mmu.set_pud mmu.pte_clear mmu.pmd_clear mmu.pte_val mmu.pmd_val mmu.pgd_val
        mmu.make_pte mmu.make_pmd mmu.make_pgd mmu.kmap_atomic_pte mmu.lazy_mode.enter mmu.lazy_mode.leave
        """;

    private static readonly char[] s_blanks = [' ', '\n', '\r'];

    [Fact]
    public void Every_64_bit_slot_that_sites_use_is_there_with_its_convention()
    {
        foreach (string entry in Kernels64.Split(s_blanks, StringSplitOptions.RemoveEmptyEntries))
        {
            OpSlot slot = StandardLayout.X64[entry.TrimEnd('*')];
            Assert.True(
                slot.Convention == (entry.EndsWith('*') ? CallConvention.CalleeSave : CallConvention.KernelSysV),
                $"{slot.Name} is {slot.Convention}");
        }
    }

    [Fact]
    public void Every_32_bit_slot_that_sites_use_is_there_with_its_convention()
    {
        var calleeSaved = Kernels64.Split(s_blanks, StringSplitOptions.RemoveEmptyEntries)
            .Where(n => n.EndsWith('*')).Select(n => n.TrimEnd('*')).ToHashSet();
        foreach (string name in Kernel32.Split(s_blanks, StringSplitOptions.RemoveEmptyEntries))
        {
            OpSlot slot = StandardLayout.I386[name];
            Assert.True(
                slot.Convention == (calleeSaved.Contains(name) ? CallConvention.CalleeSave : CallConvention.I386RegParm),
                $"{name} is {slot.Convention}");
        }
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Tables_follow_the_order_of_the_kernel_and_type_numbers_fit_a_byte(int bitness)
    {
        OpsLayout layout = StandardLayout.For(bitness);
        Assert.Equal(["init", "time", "cpu", "irq", "mmu", "lock"], layout.Tables.Select(t => t.Name));
        Assert.InRange(layout.Count, 1, 255);
        Assert.Same(layout, StandardLayout.For(bitness));
    }

    [Fact]
    public void Jump_slots_are_the_interrupt_returns_and_system_call_exits()
    {
        string[] jumps = ["cpu.irq_enable_sysexit", "cpu.irq_enable_syscall_ret", "cpu.usergs_sysret64", "cpu.usergs_sysret32", "cpu.iret"];
        Assert.Equal(jumps, Names(StandardLayout.X64, SlotKind.Jump));
        Assert.Equal(["cpu.irq_enable_sysexit", "cpu.iret"], Names(StandardLayout.I386, SlotKind.Jump));
        Assert.Equal(["init.patch"], Names(StandardLayout.X64, SlotKind.Data));
        Assert.Equal(["init.patch"], Names(StandardLayout.I386, SlotKind.Data));
    }

    [Theory]
    [InlineData(
        "cpu.read_cr8 cpu.write_cr8 cpu.load_gs_index cpu.swapgs irq.adjust_exception_frame mmu.set_p4d mmu.set_pgd mmu.make_pud", 64)]
    [InlineData("mmu.set_pte_atomic mmu.set_pte_present mmu.pte_clear mmu.pmd_clear mmu.kmap_atomic_pte cpu.load_esp0", 32)]
    public void Slots_of_one_bitness_are_absent_from_the_other(string names, int bitness)
    {
        foreach (string name in names.Split(' '))
        {
            Assert.True(StandardLayout.For(bitness).TryGetSlot(name, out _), name);
            Assert.False(StandardLayout.For(96 - bitness).TryGetSlot(name, out _), name);
        }
    }

    [Fact]
    public void Other_bitnesses_are_refused() => Assert.Throws<ArgumentOutOfRangeException>(() => StandardLayout.For(16));

    private static IEnumerable<string> Names(OpsLayout layout, SlotKind kind) =>
        layout.Slots.Where(s => s.Kind == kind).Select(s => s.Name);
}
