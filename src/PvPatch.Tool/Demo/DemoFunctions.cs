namespace PvPatch.Tool.Demo;

/// <summary>
/// The functions of the demo's guest by the names kernels give them, so that the standard backends find them. Each is a stub of the guest;
/// two are "loaded" farther away than a call reaches. The guest has no others (<c>xen_alloc_p4d</c>, for one).
/// </summary>
internal static class DemoFunctions
{
    /// <summary>Functions farther than 2 GiB from the guest's code, 64-bit only: in 32-bit code a call reaches everything.</summary>
    public static readonly string[] Far = ["xen_sched_clock", "kvm_sched_clock_read"];

    /// <summary>Functions of both guests.</summary>
    private const string Both =
        "nop_func pv_native_save_fl pv_native_irq_disable pv_native_irq_enable native_restore_fl pv_native_read_cr2 native_write_cr3 "
        + "native_set_pte native_set_pte_at native_flush_tlb_multi native_iret native_clts native_sched_clock "
        + "__raw_callee_save___native_queued_spin_unlock __raw_callee_save___native_vcpu_is_preempted "
        + "check_events xen_save_fl_direct xen_restore_fl_direct xen_irq_disable_direct xen_irq_enable_direct xen_read_cr2_direct "
            + "xen_write_cr3 "
        + "xen_set_pte xen_set_pte_at xen_alloc_pte xen_flush_tlb_multi xen_iret xen_clts "
        + "__raw_callee_save_xen_pte_val __raw_callee_save_xen_make_pte __raw_callee_save_xen_vcpu_stolen "
        + "__pv_queued_spin_lock_slowpath __raw_callee_save___pv_queued_spin_unlock xen_qlock_wait xen_qlock_kick "
        + "kvm_flush_tlb_multi kvm_steal_clock kvm_wait kvm_kick_cpu __raw_callee_save___kvm_vcpu_is_preempted";

    private const string Only64 =
        "_paravirt_ident_64 native_swapgs native_usergs_sysret64 xen_sysret64";

    private const string Only32 =
        "_paravirt_ident_32 _paravirt_ident_64 native_irq_enable_sysexit xen_sysexit "
        + "lguest_save_fl lguest_irq_disable lg_restore_fl lg_irq_enable lguest_iret lguest_read_cr2 lguest_write_cr3 lguest_set_pte "
            + "lguest_set_pte_at lguest_clts "
        + "vmi_set_pte vmi_set_pte_at vmi_write_cr3 vmi_read_cr2";

    /// <summary>The names of the functions near the guest's code, in the order they lie there.</summary>
    public static IEnumerable<string> Near(int bitness)
    {
        string[] all = $"{Both} {(bitness == 64 ? Only64 : Only32)}".Split(' ');
        return bitness == 64 ? all : all.Concat(Far);
    }
}
