using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// The standard paravirt ops layout: every operation that Linux call sites went through from 2.6.24 to 6.x, under the names the
/// kernel gives them (<c>irq.irq_disable</c>). For own guests and for experiments; the layout of a kernel image is read from the image.
/// </summary>
/// <remarks>
/// <para>The order is this project's own, so indexes are <em>not</em> the type numbers of any kernel; names, kinds and conventions are
/// theirs.</para>
/// <para>
/// <c>init.patch</c> is a hook no site calls (<see cref="SlotKind.Data"/>). The interrupt returns and system call exits are jumped
/// to. The slots that kernels from 2.6.30 on hold in struct paravirt_callee_save have <see cref="CallConvention.CalleeSave"/>;
/// all others are C functions without vector registers.
/// </para>
/// </remarks>
public static class StandardLayout
{
    private static readonly Lazy<OpsLayout> s_x64 = new(static () => Build("pv ops x86-64", 64));

    private static readonly Lazy<OpsLayout> s_i386 = new(static () => Build("pv ops i386", 32));

    /// <summary>The layout of 64-bit code, with up to five page-table levels.</summary>
    public static OpsLayout X64 => s_x64.Value;

    /// <summary>The layout of 32-bit code, with PAE page tables.</summary>
    public static OpsLayout I386 => s_i386.Value;

    /// <summary>The layout of a bitness.</summary>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>The layout.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither.</exception>
    public static OpsLayout For(int bitness)
    {
        CheckBitness(bitness);
        return bitness == 64 ? X64 : I386;
    }

    /// <summary>Refuses a bitness that is neither 32 nor 64.</summary>
    internal static void CheckBitness(int bitness)
    {
        if (bitness is not (32 or 64))
        {
            throw new ArgumentOutOfRangeException(nameof(bitness), bitness, "the bitness is 32 or 64");
        }
    }

    private static OpsLayout Build(string name, int bitness)
    {
        bool x64 = bitness == 64;
        CallConvention c = x64 ? CallConvention.KernelSysV : CallConvention.I386RegParm;
        return OpsLayout.Create(
            b => b
                .Table("init", static t => t.Slot("patch", SlotKind.Data), c)
                .Table("time", static t => t.Slot("sched_clock").Slot("steal_clock"), c)
                .Table("cpu", t => Cpu(t, x64), c)
                .Table("irq", t => Irq(t, x64), c)
                .Table("mmu", t => Mmu(t, x64), c)
                .Table("lock", Lock, c),
            name);
    }

    private static void Cpu(OpsTableBuilder t, bool x64)
    {
        Calls(t, "io_delay get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr4_safe read_cr4 write_cr4");
        Calls(t, x64 ? "read_cr8 write_cr8" : "");
        Calls(t, "load_tr_desc load_gdt load_idt store_gdt store_idt set_ldt store_tr load_tls");
        Calls(t, x64 ? "load_gs_index" : "");
        Calls(t, "write_ldt_entry write_gdt_entry write_idt_entry alloc_ldt free_ldt load_sp0");
        Calls(t, x64 ? "" : "load_esp0"); // load_sp0's name until 2.6.24
        Calls(t, "set_iopl_mask invalidate_io_bitmap update_io_bitmap wbinvd cpuid");
        Calls(t, "read_msr rdmsr_regs write_msr wrmsr_regs read_msr_safe write_msr_safe read_tsc read_pmc read_tscp");
        t.Slot("irq_enable_sysexit", SlotKind.Jump);
        if (x64)
        {
            // irq_enable_syscall_ret is the ancestor (2.6.25, 2.6.26) of the two sysret slots.
            t.Slot("irq_enable_syscall_ret", SlotKind.Jump).Slot("usergs_sysret64", SlotKind.Jump).Slot("usergs_sysret32", SlotKind.Jump);
        }

        t.Slot("iret", SlotKind.Jump);
        Calls(t, x64 ? "swapgs" : "");
        Calls(t, "start_context_switch end_context_switch lazy_mode.enter lazy_mode.leave");
    }

    private static void Irq(OpsTableBuilder t, bool x64)
    {
        CalleeSaved(t, "save_fl restore_fl irq_disable irq_enable");
        Calls(t, "safe_halt halt");
        Calls(t, x64 ? "adjust_exception_frame" : "");
    }

    private static void Mmu(OpsTableBuilder t, bool x64)
    {
        CalleeSaved(t, "read_cr2");
        Calls(t, "write_cr2 read_cr3 write_cr3 activate_mm dup_mmap enter_mmap exit_mmap");
        Calls(t, "flush_tlb_user flush_tlb_kernel flush_tlb_single flush_tlb_one_user flush_tlb_others flush_tlb_multi tlb_remove_table");
        Calls(t, "notify_page_enc_status_changed pgd_alloc pgd_free");
        Calls(t, "alloc_pt alloc_pd alloc_pd_clone release_pt release_pd"); // alloc_pte and so on, until 2.6.25
        Calls(t, "alloc_pte alloc_pmd alloc_pmd_clone");
        Calls(t, x64 ? "alloc_pud alloc_p4d" : "");
        Calls(t, "release_pte release_pmd");
        Calls(t, x64 ? "release_pud release_p4d" : "");
        Calls(t, "set_pte set_pte_at set_pmd set_pmd_at");
        Calls(t, x64 ? "" : "set_pte_atomic set_pte_present pte_clear pmd_clear");
        Calls(t, "pte_update pte_update_defer pmd_update pmd_update_defer ptep_modify_prot_start ptep_modify_prot_commit");
        CalleeSaved(t, "pte_val make_pte pgd_val make_pgd");
        Calls(t, "set_pud");
        CalleeSaved(t, "pmd_val make_pmd");
        if (x64)
        {
            CalleeSaved(t, "pud_val make_pud");
            Calls(t, "set_p4d");
            CalleeSaved(t, "p4d_val make_p4d");
            Calls(t, "set_pgd");
        }

        Calls(t, x64 ? "" : "kmap_atomic_pte");
        Calls(t, "lazy_mode.enter lazy_mode.leave lazy_mode.flush set_fixmap");
    }

    private static void Lock(OpsTableBuilder t)
    {
        Calls(t, "queued_spin_lock_slowpath");
        CalleeSaved(t, "queued_spin_unlock");
        Calls(t, "wait kick");
        CalleeSaved(t, "vcpu_is_preempted lock_spinning"); // lock_spinning and unlock_kick: ticket locks of 3.12 to 4.x
        Calls(t, "unlock_kick spin_is_locked spin_is_contended spin_lock spin_lock_flags spin_trylock spin_unlock");
    }

    private static void Calls(OpsTableBuilder t, string names)
    {
        foreach (string name in names.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            t.Slot(name);
        }
    }

    private static void CalleeSaved(OpsTableBuilder t, string names)
    {
        foreach (string name in names.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            t.Slot(name, SlotKind.Call, CallConvention.CalleeSave);
        }
    }
}
