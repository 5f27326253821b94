using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// A Xen paravirtual guest: nearly every slot is a function of Xen's. Guests with hardware virtualisation (HVM, PVH) are native but for
/// a few slots; <see cref="Backend.Derive"/> makes them of the native backend.
/// </summary>
internal static class XenBackend
{
    // __HYPERVISOR_iret of Xen's public interface, and the size of an entry of the hypercall page.
    private const int HypercallIret = 23;
    private const int HypercallEntrySize = 32;

    /// <summary>The backend's name.</summary>
    public const string Name = "xen";

    /// <summary>Makes the Xen backend for any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="bitness">32 or 64: what code the sites are in.</param>
    /// <param name="targets">Where the functions are, those of Xen (<c>xen_…</c>) and the native ones that stay.</param>
    /// <param name="options">What guests disagree on; <see langword="null"/> for a guest of 4.14 or later with several CPUs.</param>
    /// <returns>
    /// The backend. Slots are missing where Xen's function is not known, and where kernels leave a null pointer: <c>mmu.alloc_p4d</c>,
    /// <c>mmu.release_p4d</c>, <c>mmu.set_pgd</c> with five levels, <c>mmu.notify_page_enc_status_changed</c>.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    /// <exception cref="ArgumentException">
    /// The inline forms asked for do not exist at this bitness, or their data is out of reach.
    /// </exception>
    public static Backend Create(OpsLayout layout, int bitness, SlotTargets targets, XenOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(targets);
        StandardLayout.CheckBitness(bitness);
        options ??= new XenOptions();
        var slots = new PvSlots(layout);
        var native = new NativeOperations(slots, bitness, targets, new NativeOptions());
        XenBodies? bodies = XenBodies.Create(bitness, options, targets);
        return Backend.Create(Name, layout, b =>
        {
            foreach ((string name, OpSlot slot) in slots.All)
            {
                b.Set(slot.Name, OperationOf(name, slot));
            }
        });

        Operation OperationOf(string name, OpSlot slot)
        {
            if (slot.Table == "lock" && !options.ParavirtSpinlocks)
            {
                return options.InlineNativeLocks ?? !slots.HasPatchHook ? native.WithBody(name, slot) : native.WithoutBody(name, slot);
            }

            Operation called = CalledOperationOf(name, slot);
            if (bodies?.Find(name) is not InlineBody body)
            {
                return called;
            }

            // Where the body does not fit, the backend's patch function goes on with the default rule.
            Operation inlined = Operation.Inline(body).DefaultingWhereTooLong();
            return called.Target is VirtualAddress target ? inlined.WithTarget(target, called.TargetName) : inlined;
        }

        Operation CalledOperationOf(string name, OpSlot slot)
        {
            if (XenFunctions.IsNop(name))
            {
                return targets.TryFind(NativeFunctions.NopNames, out string? nop, out VirtualAddress nopTarget)
                    ? Operation.Nop.WithTarget(nopTarget, nop)
                    : Operation.Nop;
            }

            if (targets.TryFind(XenFunctions.Of(name, options), out string? symbol, out VirtualAddress target))
            {
                return NativeOperations.Leave(slot, target, symbol);
            }

            // Before it had a function of its own (2.6.24), Xen's iret was the entry of the hypercall page itself.
            if (name == "cpu.iret" && bitness == 32 && targets.Find("hypercall_page") is VirtualAddress page)
            {
                return NativeOperations.Leave(slot, page + (HypercallIret * HypercallEntrySize), "hypercall_page[iret]");
            }

            return options.KeepsNativeSlots || XenFunctions.MayBeNative(name) ? native.WithoutBody(name, slot) : Operation.Missing;
        }
    }
}

/// <summary>What Xen paravirtual guests disagree on. The defaults are a 64-bit guest of 4.14 or later with several CPUs.</summary>
public sealed record XenOptions
{
    /// <summary>
    /// The inline forms of the interrupt operations that kernels from 2.6.23 until about 4.13 had; <see langword="null"/> for later
    /// kernels, which only call. Not used where <see cref="VcpuInfoPlaced"/> is <see langword="false"/>.
    /// </summary>
    public XenDirectBodies? DirectBodies { get; init; }

    /// <summary>
    /// Whether the hypervisor let the guest place its vcpu_info in per-CPU memory. If so the interrupt slots and <c>mmu.read_cr2</c> hold
    /// the <c>_direct</c> functions, else thunks of the plain ones. From 6.1 on it always did.
    /// </summary>
    public bool VcpuInfoPlaced { get; init; } = true;

    /// <summary>Whether the lock slots are Xen's: more than one possible CPU, and no <c>nopvspin</c>. Otherwise they are native.</summary>
    public bool ParavirtSpinlocks { get; init; } = true;

    /// <summary>
    /// Whether the hypervisor keeps accessed and dirty bits over page-table updates (mmu_pt_update_preserve_ad), so that the slots
    /// <c>mmu.ptep_modify_prot_*</c> are Xen's. From 6.1 on they always are.
    /// </summary>
    public bool PreservesAccessedDirty { get; init; } = true;

    /// <summary>
    /// Whether lock slots that stay native keep their bodies. <see langword="null"/>: where the layout has no <c>init.patch</c>. Kernels
    /// with that hook give Xen one that knows no native bodies; from 6.1 on the bodies are alternatives that look at the lock
    /// functions and not at the hypervisor.
    /// </summary>
    public bool? InlineNativeLocks { get; init; }

    /// <summary>
    /// Whether slots that Xen does not speak of keep their native functions. Kernels to 6.12 put whole tables of Xen's in place, which
    /// leaves such slots null; 7.2 (measured) puts in slot by slot.
    /// </summary>
    public bool KeepsNativeSlots { get; init; }
}

/// <summary>The form of Xen's inline interrupt operations.</summary>
public enum XenDirectForm
{
    /// <summary>32-bit, seen in 2.6.24: unmasking is an <c>and</c> over mask and pending byte together.</summary>
    AndWord,

    /// <summary>
    /// Seen in 2.6.32: unmasking is a store, then a test. In restore_fl the jump over the call is the wrong way round (<c>je</c>).
    /// </summary>
    StoreAndTest,

    /// <summary>Seen in 3.6: as <see cref="StoreAndTest"/>, with the jump in restore_fl put right (<c>jne</c>).</summary>
    StoreAndTestFixed,
}

/// <summary>Where Xen's inline interrupt operations find their data.</summary>
public sealed record XenDirectBodies
{
    /// <summary>
    /// The address of vcpu_info as instructions name it: the offset in the per-CPU segment where <see cref="PerCpu"/> holds, else the
    /// data's run address. Its byte 0 says that an event is pending, byte 1 masks events. In 64-bit code it must lie within 2 GiB of 0.
    /// </summary>
    public required VirtualAddress VcpuInfo { get; init; }

    /// <summary>
    /// The run address of <c>check_events</c>, which delivers pending events and preserves all registers; <see langword="null"/> to
    /// ask the targets. Without it the two operations that call it have no body.
    /// </summary>
    public VirtualAddress? CheckEvents { get; init; }

    /// <summary>Which kernels' form.</summary>
    public XenDirectForm Form { get; init; } = XenDirectForm.StoreAndTestFixed;

    /// <summary>Whether the data is per CPU, reached through fs (32-bit) or gs (64-bit), as in kernels for several CPUs.</summary>
    public bool PerCpu { get; init; } = true;
}

/// <summary>What Xen's functions are called. Where a name changed between kernel versions, the later one comes first.</summary>
internal static class XenFunctions
{
    /// <summary>
    /// Slots that hold the native function under Xen where there is none of Xen's own: instructions a paravirtual guest may execute, or
    /// that the hypervisor emulates. For every other slot a native function would be wrong, so it is not fallen back on.
    /// </summary>
    public static bool MayBeNative(string name) => name is
        "cpu.clts" or "cpu.read_cr0" or "cpu.write_cr0" or "cpu.read_cr4" or "cpu.read_cr4_safe" or "cpu.read_cr8" or "cpu.write_cr8"
        or "cpu.wbinvd" or "cpu.read_msr" or "cpu.write_msr" or "cpu.read_msr_safe" or "cpu.write_msr_safe" or "cpu.rdmsr_regs"
            or "cpu.wrmsr_regs"
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
