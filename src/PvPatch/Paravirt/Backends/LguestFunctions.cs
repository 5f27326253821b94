namespace PvPatch.Paravirt;

/// <summary>What lguest's functions are called, and which slots it fills.</summary>
internal static class LguestFunctions
{
    /// <summary>The names a slot's lguest function goes by, likeliest first; none where the slot stays native.</summary>
    public static string[] Of(string name)
    {
        string shortName = name[(name.IndexOf('.', StringComparison.Ordinal) + 1)..];
        return name switch
        {
            "init.patch" => ["lguest_patch"],

            // These four had no prefix for most of their life, and thunks from 2.6.30 on.
            "irq.save_fl" or "irq.irq_disable" =>
                [$"{NativeFunctions.Thunk}{shortName}", $"{NativeFunctions.Thunk}lguest_{shortName}", $"lguest_{shortName}", shortName],
            "irq.restore_fl" or "irq.irq_enable" => [$"lg_{shortName}", $"{NativeFunctions.Thunk}{shortName}", $"lguest_{shortName}", shortName],
            "cpu.start_context_switch" => ["paravirt_start_context_switch"],
            "cpu.lazy_mode.enter" => ["paravirt_enter_lazy_cpu"],
            "cpu.lazy_mode.leave" => ["lguest_leave_lazy_mode"],
            "mmu.lazy_mode.enter" => ["paravirt_enter_lazy_mmu"],
            "mmu.lazy_mode.leave" => ["lguest_leave_lazy_mmu_mode", "lguest_leave_lazy_mode"],
            "mmu.lazy_mode.flush" => ["paravirt_flush_lazy_mmu"],
            "mmu.pte_update_defer" => ["lguest_pte_update"],
            _ when IsAlwaysReplaced(name) || IsSometimesReplaced(name) => [$"lguest_{shortName}"],
            _ => [],
        };
    }

    /// <summary>Slots in which a native function would be wrong in every lguest kernel.</summary>
    public static bool IsAlwaysReplaced(string name) => name is
        "irq.save_fl" or "irq.restore_fl" or "irq.irq_disable" or "irq.irq_enable" or "irq.safe_halt"
        or "cpu.load_gdt" or "cpu.cpuid" or "cpu.load_idt" or "cpu.iret" or "cpu.load_sp0" or "cpu.load_esp0" or "cpu.load_tr_desc" or "cpu.set_ldt"
        or "cpu.load_tls" or "cpu.set_debugreg" or "cpu.clts" or "cpu.read_cr0" or "cpu.write_cr0" or "cpu.read_cr4" or "cpu.write_cr4"
        or "cpu.write_gdt_entry" or "cpu.write_idt_entry" or "cpu.wbinvd" or "mmu.write_cr3" or "mmu.flush_tlb_user" or "mmu.flush_tlb_single"
        or "mmu.flush_tlb_kernel" or "mmu.set_pte" or "mmu.set_pte_at" or "mmu.set_pmd" or "mmu.read_cr2" or "mmu.read_cr3";

    // The PAE slots came with PAE support; the lazy modes and updates changed their shape.
    private static bool IsSometimesReplaced(string name) => name is
        "cpu.end_context_switch" or "mmu.set_pte_atomic" or "mmu.pte_clear" or "mmu.pmd_clear" or "mmu.set_pud" or "mmu.pte_update";
}
