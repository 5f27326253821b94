namespace PvPatch.Tests.Backends;

/// <summary>
/// What the slots of three 64-bit kernels hold at the moment of patching, on bare hardware and under Xen: read from the kernels'
/// sources, and the second source for what the backends find.
/// </summary>
internal static class KernelSlotTable
{
    // slot (* callee-save), whether 5.10 6.1 6.12 have it, native function, Xen function; one name, or one for each kernel.
    // T: is the callee-save thunk of the function that follows.
    private const string Table = """
        init.patch x-- native_patch paravirt_patch_default
        time.sched_clock x-- native_sched_clock xen_sched_clock
        time.steal_clock x-- native_steal_clock xen_steal_clock
        cpu.io_delay xxx native_io_delay xen_io_delay
        cpu.get_debugreg xxx native_get_debugreg/pv_native_get_debugreg/pv_native_get_debugreg xen_get_debugreg
        cpu.set_debugreg xxx native_set_debugreg/pv_native_set_debugreg/pv_native_set_debugreg xen_set_debugreg
        cpu.read_cr0 xxx native_read_cr0 xen_read_cr0
        cpu.write_cr0 xxx native_write_cr0 xen_write_cr0
        cpu.write_cr4 xxx native_write_cr4 xen_write_cr4
        cpu.load_tr_desc xxx native_load_tr_desc NOP
        cpu.load_gdt xxx native_load_gdt xen_load_gdt
        cpu.load_idt xxx native_load_idt xen_load_idt
        cpu.set_ldt xxx native_set_ldt xen_set_ldt
        cpu.store_tr xxx native_store_tr xen_store_tr
        cpu.load_tls xxx native_load_tls xen_load_tls
        cpu.load_gs_index xxx native_load_gs_index xen_load_gs_index
        cpu.write_ldt_entry xxx native_write_ldt_entry xen_write_ldt_entry
        cpu.write_gdt_entry xxx native_write_gdt_entry xen_write_gdt_entry
        cpu.write_idt_entry xxx native_write_idt_entry xen_write_idt_entry
        cpu.alloc_ldt xxx NOP xen_alloc_ldt
        cpu.free_ldt xxx NOP xen_free_ldt
        cpu.load_sp0 xxx native_load_sp0 xen_load_sp0
        cpu.invalidate_io_bitmap xxx native_tss_invalidate_io_bitmap xen_invalidate_io_bitmap
        cpu.update_io_bitmap xxx native_tss_update_io_bitmap xen_update_io_bitmap
        cpu.wbinvd xxx native_wbinvd/native_wbinvd/pv_native_wbinvd native_wbinvd/native_wbinvd/pv_native_wbinvd
        cpu.cpuid xxx native_cpuid xen_cpuid
        cpu.read_msr xxx native_read_msr xen_read_msr
        cpu.write_msr xxx native_write_msr xen_write_msr
        cpu.read_msr_safe xxx native_read_msr_safe xen_read_msr_safe
        cpu.write_msr_safe xxx native_write_msr_safe xen_write_msr_safe
        cpu.read_pmc xxx native_read_pmc xen_read_pmc
        cpu.usergs_sysret64 x-- native_usergs_sysret64 xen_sysret64
        cpu.iret x-- native_iret xen_iret
        cpu.start_context_switch xxx NOP paravirt_start_context_switch/paravirt_start_context_switch/xen_start_context_switch
        cpu.end_context_switch xxx NOP xen_end_context_switch
        irq.save_fl* xxx native_save_fl/native_save_fl/pv_native_save_fl xen_save_fl_direct
        irq.restore_fl* x-- native_restore_fl xen_restore_fl_direct
        irq.irq_disable* xxx native_irq_disable/pv_native_irq_disable/pv_native_irq_disable xen_irq_disable_direct
        irq.irq_enable* xxx native_irq_enable/pv_native_irq_enable/pv_native_irq_enable xen_irq_enable_direct
        irq.safe_halt xxx native_safe_halt/native_safe_halt/pv_native_safe_halt xen_safe_halt
        irq.halt xxx native_halt xen_halt
        mmu.flush_tlb_user xxx native_flush_tlb_local xen_flush_tlb
        mmu.flush_tlb_kernel xxx native_flush_tlb_global xen_flush_tlb
        mmu.flush_tlb_one_user xxx native_flush_tlb_one_user xen_flush_tlb_one_user
        mmu.flush_tlb_others x-- native_flush_tlb_others xen_flush_tlb_others
        mmu.tlb_remove_table xxx tlb_remove_page/tlb_remove_page/native_tlb_remove_table tlb_remove_table
        mmu.exit_mmap xxx NOP xen_exit_mmap
        mmu.read_cr2* xxx native_read_cr2/pv_native_read_cr2/pv_native_read_cr2 xen_read_cr2_direct
        mmu.write_cr2 xxx native_write_cr2/pv_native_write_cr2/pv_native_write_cr2 xen_write_cr2
        mmu.read_cr3 xxx __native_read_cr3 xen_read_cr3
        mmu.write_cr3 xxx native_write_cr3 xen_write_cr3
        mmu.activate_mm xx- NOP xen_activate_mm
        mmu.dup_mmap xx- NOP xen_dup_mmap
        mmu.pgd_alloc xxx __paravirt_pgd_alloc xen_pgd_alloc
        mmu.pgd_free xxx NOP xen_pgd_free
        mmu.alloc_pte xxx NOP xen_alloc_pte
        mmu.alloc_pmd xxx NOP xen_alloc_pmd
        mmu.alloc_pud xxx NOP xen_alloc_pud
        mmu.alloc_p4d xxx NOP NULL
        mmu.release_pte xxx NOP xen_release_pte
        mmu.release_pmd xxx NOP xen_release_pmd
        mmu.release_pud xxx NOP xen_release_pud
        mmu.release_p4d xxx NOP NULL
        mmu.set_pte xxx native_set_pte xen_set_pte
        mmu.set_pmd xxx native_set_pmd xen_set_pmd
        mmu.ptep_modify_prot_start xxx __ptep_modify_prot_start __ptep_modify_prot_start/xen_ptep_modify_prot_start/xen_ptep_modify_prot_start
        mmu.ptep_modify_prot_commit xxx __ptep_modify_prot_commit __ptep_modify_prot_commit/xen_ptep_modify_prot_commit/xen_ptep_modify_prot_commit
        mmu.pte_val* xxx IDENT T:xen_pte_val
        mmu.make_pte* xxx IDENT T:xen_make_pte
        mmu.pgd_val* xxx IDENT T:xen_pgd_val
        mmu.make_pgd* xxx IDENT T:xen_make_pgd
        mmu.set_pud xxx native_set_pud xen_set_pud
        mmu.pmd_val* xxx IDENT T:xen_pmd_val
        mmu.make_pmd* xxx IDENT T:xen_make_pmd
        mmu.pud_val* xxx IDENT T:xen_pud_val
        mmu.make_pud* xxx IDENT T:xen_make_pud
        mmu.set_p4d xxx native_set_p4d xen_set_p4d
        mmu.p4d_val* xxx IDENT T:xen_p4d_val
        mmu.make_p4d* xxx IDENT T:xen_make_p4d
        mmu.set_pgd xxx native_set_pgd NULL
        mmu.lazy_mode.enter xxx NOP paravirt_enter_lazy_mmu/paravirt_enter_lazy_mmu/xen_enter_lazy_mmu
        mmu.lazy_mode.leave xxx NOP xen_leave_lazy_mmu
        mmu.lazy_mode.flush xxx NOP paravirt_flush_lazy_mmu/paravirt_flush_lazy_mmu/xen_flush_lazy_mmu
        mmu.set_fixmap xxx native_set_fixmap xen_set_fixmap
        lock.queued_spin_lock_slowpath xxx native_queued_spin_lock_slowpath __pv_queued_spin_lock_slowpath
        lock.queued_spin_unlock* xxx T:__native_queued_spin_unlock T:__pv_queued_spin_unlock
        lock.wait xxx NOP xen_qlock_wait
        lock.kick xxx NOP xen_qlock_kick
        lock.vcpu_is_preempted* xxx T:__native_vcpu_is_preempted T:xen_vcpu_stolen
        mmu.flush_tlb_multi -xx native_flush_tlb_multi xen_flush_tlb_multi
        mmu.notify_page_enc_status_changed -xx NOP NULL
        mmu.enter_mmap --x NOP xen_enter_mmap
        """;

    /// <summary>The kernels, in the order of the table's columns.</summary>
    public static readonly string[] Kernels = ["5.10", "6.1", "6.12"];

    private static readonly string[] s_nopNames = ["_paravirt_nop", "_paravirt_nop", "nop_func"];

    /// <summary>The slots of a kernel.</summary>
    public static IEnumerable<KernelSlot> Of(string kernel)
    {
        int column = Array.IndexOf(Kernels, kernel);
        foreach (string line in Table.Split('\n'))
        {
            string[] cells = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (cells[1][column] == 'x')
            {
                yield return new KernelSlot(cells[0].TrimEnd('*'), cells[0].EndsWith('*'), Pick(cells[2], column), Pick(cells[3], column));
            }
        }
    }

    /// <summary>The symbol of the function that does nothing.</summary>
    public static string NopName(string kernel) => s_nopNames[Array.IndexOf(Kernels, kernel)];

    private static string Pick(string cell, int column)
    {
        string[] names = cell.Split('/');
        string name = names.Length == 1 ? names[0] : names[column];
        return name.StartsWith("T:", StringComparison.Ordinal) ? string.Concat("__raw_callee_save_", name.AsSpan(2))
            : name == "NOP" ? s_nopNames[column]
            : name == "IDENT" ? "_paravirt_ident_64"
            : name;
    }
}

/// <summary>One slot of a kernel; a function called NULL is a null pointer.</summary>
internal sealed record KernelSlot(string Name, bool CalleeSave, string Native, string Xen);
