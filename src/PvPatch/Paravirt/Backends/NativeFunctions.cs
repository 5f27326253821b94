namespace PvPatch.Paravirt;

/// <summary>What native functions are called. Where a name changed between kernel versions, the later one comes first.</summary>
internal static class NativeFunctions
{
    /// <summary>Prefix of the thunk that gives a C function the callee-save convention.</summary>
    public const string Thunk = "__raw_callee_save_";

    /// <summary>The function that does nothing: 6.8 and later, 2.6.22 to 6.7.</summary>
    public static readonly string[] NopNames = ["nop_func", "_paravirt_nop", "native_nop"];

    /// <summary>What a slot does on bare hardware.</summary>
    public static NativeRole RoleOf(string name) => name switch
    {
        "mmu.pte_val" or "mmu.make_pte" or "mmu.pmd_val" or "mmu.make_pmd" or "mmu.pud_val" or "mmu.make_pud"
            or "mmu.p4d_val" or "mmu.make_p4d" or "mmu.pgd_val" or "mmu.make_pgd" => NativeRole.Identity,
        "cpu.alloc_ldt" or "cpu.free_ldt" or "cpu.start_context_switch" or "cpu.end_context_switch"
            or "cpu.lazy_mode.enter" or "cpu.lazy_mode.leave" or "irq.adjust_exception_frame" or "apic.startup_ipi_hook"
            or "mmu.activate_mm" or "mmu.dup_mmap" or "mmu.enter_mmap" or "mmu.exit_mmap" or "mmu.notify_page_enc_status_changed"
            or "mmu.pgd_free" or "mmu.alloc_pt" or "mmu.alloc_pd" or "mmu.alloc_pd_clone" or "mmu.release_pt" or "mmu.release_pd"
            or "mmu.alloc_pte" or "mmu.alloc_pmd" or "mmu.alloc_pmd_clone" or "mmu.alloc_pud" or "mmu.alloc_p4d"
            or "mmu.release_pte" or "mmu.release_pmd" or "mmu.release_pud" or "mmu.release_p4d"
            or "mmu.pte_update" or "mmu.pte_update_defer" or "mmu.pmd_update" or "mmu.pmd_update_defer"
            or "mmu.lazy_mode.enter" or "mmu.lazy_mode.leave" or "mmu.lazy_mode.flush" or "mmu.lazy_mode_flush"
            or "lock.wait" or "lock.kick" or "lock.lock_spinning" or "lock.unlock_kick"
            or "set_lazy_mode" or "startup_ipi_hook" => NativeRole.Nop,
        _ => NativeRole.Function,
    };

    /// <summary>The names a slot's native function goes by, likeliest first.</summary>
    public static string[] Of(string name, PvSlots slots)
    {
        string shortName = name[(name.IndexOf('.', StringComparison.Ordinal) + 1)..];
        return name switch
        {
            // The slots of their own for the safe forms came after 3.6. Before, the plain slots held the safe functions.
            "cpu.read_msr" or "cpu.write_msr" when !slots.Has(name + "_safe") => [$"native_{shortName}_safe", $"native_{shortName}"],
            "cpu.rdmsr_regs" or "cpu.wrmsr_regs" => [$"native_{shortName.Replace("msr_", "msr_safe_", StringComparison.Ordinal)}"],
            "cpu.invalidate_io_bitmap" or "cpu.update_io_bitmap" => [$"native_tss_{shortName}"],
            "cpu.write_ldt_entry" or "cpu.write_gdt_entry" or "cpu.write_idt_entry" => [$"native_{shortName}", "write_dt_entry"],
            "time.get_tsc_khz" => ["native_calibrate_tsc"],
            "time.get_cpu_khz" or "get_cpu_khz" => ["native_calculate_cpu_khz"],
            "get_scheduled_cycles" => ["native_read_tsc"],
            "mmu.read_cr3" => ["__native_read_cr3", "native_read_cr3"],
            "mmu.flush_tlb_user" => ["native_flush_tlb_local", "native_flush_tlb"],
            "mmu.flush_tlb_kernel" => ["native_flush_tlb_global"],
            "mmu.tlb_remove_table" => ["native_tlb_remove_table", "tlb_remove_page"],
            "mmu.pgd_alloc" => ["__paravirt_pgd_alloc"],
            "mmu.ptep_modify_prot_start" or "mmu.ptep_modify_prot_commit" => [$"__{shortName}"],
            "mmu.kmap_atomic_pte" => ["kmap_atomic"],
            "lock.queued_spin_unlock" or "lock.vcpu_is_preempted" => [$"{Thunk}__native_{shortName}"],
            "lock.spin_is_locked" or "lock.spin_is_contended" or "lock.spin_lock" or "lock.spin_lock_flags"
                or "lock.spin_trylock" or "lock.spin_unlock" => [$"__ticket_{shortName}"],
            _ => [$"pv_native_{shortName}", $"native_{shortName}"],
        };
    }
}

/// <summary>What a slot does on bare hardware.</summary>
internal enum NativeRole
{
    /// <summary>Something, done by a function.</summary>
    Function,

    /// <summary>Nothing.</summary>
    Nop,

    /// <summary>Its argument is its result: page-table entries hold physical addresses.</summary>
    Identity,
}
