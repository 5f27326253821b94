namespace PvPatch.Paravirt;

/// <summary>What Xen's functions are called. Where a name changed between kernel versions, the later one comes first.</summary>
internal static class XenFunctions
{
    /// <summary>
    /// Slots that hold the native function under Xen where there is none of Xen's own: instructions a paravirtual guest may execute, or that the
    /// hypervisor emulates. For every other slot a native function would be wrong, so it is not fallen back on.
    /// </summary>
    public static bool MayBeNative(string name) => name is
        "cpu.clts" or "cpu.read_cr0" or "cpu.write_cr0" or "cpu.read_cr4" or "cpu.read_cr4_safe" or "cpu.read_cr8" or "cpu.write_cr8"
        or "cpu.wbinvd" or "cpu.read_msr" or "cpu.write_msr" or "cpu.read_msr_safe" or "cpu.write_msr_safe" or "cpu.rdmsr_regs" or "cpu.wrmsr_regs"
        or "cpu.read_tsc" or "cpu.read_tscp" or "cpu.read_pmc" or "cpu.store_gdt" or "cpu.store_idt" or "cpu.store_tr"
        or "time.steal_clock" or "mmu.write_cr2" or "mmu.ptep_modify_prot_start" or "mmu.ptep_modify_prot_commit";

    /// <summary>Slots in which Xen does nothing.</summary>
    public static bool IsNop(string name) => name is
        "cpu.load_tr_desc" or "cpu.swapgs" or "mmu.pte_update" or "mmu.pte_update_defer" or "mmu.pmd_update" or "mmu.pmd_update_defer"
        or "mmu.alloc_pd_clone" or "mmu.alloc_pmd_clone" or "apic.startup_ipi_hook";

    /// <summary>The names a slot's Xen function goes by, likeliest first. A null pointer (alloc_p4d) is a name no kernel has.</summary>
    public static string[] Of(string name, XenOptions options)
    {
        string shortName = name[(name.IndexOf('.', StringComparison.Ordinal) + 1)..];
        string[] plain = [$"{NativeFunctions.Thunk}xen_{shortName}", $"xen_{shortName}"];
        return name switch
        {
            "init.patch" => ["xen_patch", "paravirt_patch_default"],
            "time.sched_clock" => ["xen_sched_clock", "xen_clocksource_read"],
            "time.get_tsc_khz" => ["xen_tsc_khz"],
            "time.get_cpu_khz" => ["xen_cpu_khz"],
            "cpu.usergs_sysret64" or "cpu.usergs_sysret32" => [$"xen_{shortName["usergs_".Length..]}"],
            "cpu.irq_enable_sysexit" => ["xen_sysexit"],
            "cpu.start_context_switch" => ["xen_start_context_switch", "paravirt_start_context_switch"],
            "cpu.lazy_mode.enter" => ["paravirt_enter_lazy_cpu"],
            "cpu.lazy_mode.leave" or "mmu.lazy_mode.leave" => ["xen_leave_lazy_mmu", "xen_leave_lazy"],
            "mmu.lazy_mode.enter" => ["xen_enter_lazy_mmu", "paravirt_enter_lazy_mmu"],
            "mmu.lazy_mode.flush" or "mmu.lazy_mode_flush" => ["xen_flush_lazy_mmu", "paravirt_flush_lazy_mmu"],
            "irq.save_fl" or "irq.restore_fl" or "irq.irq_disable" or "irq.irq_enable" or "mmu.read_cr2" when options.VcpuInfoPlaced =>
                [$"xen_{shortName}_direct", .. plain],
            "cpu.write_msr" => ["xen_write_msr", "xen_write_msr_safe"],
            "mmu.flush_tlb_user" or "mmu.flush_tlb_kernel" => ["xen_flush_tlb"],
            "mmu.tlb_remove_table" => ["tlb_remove_table"],
            "mmu.ptep_modify_prot_start" or "mmu.ptep_modify_prot_commit" when !options.PreservesAccessedDirty => [],
            "lock.queued_spin_lock_slowpath" => ["__pv_queued_spin_lock_slowpath"],
            "lock.queued_spin_unlock" => [$"{NativeFunctions.Thunk}__pv_queued_spin_unlock"],
            "lock.wait" or "lock.kick" => [$"xen_qlock_{shortName}"],
            "lock.vcpu_is_preempted" => [$"{NativeFunctions.Thunk}xen_vcpu_stolen"],
            _ => plain,
        };
    }
}
