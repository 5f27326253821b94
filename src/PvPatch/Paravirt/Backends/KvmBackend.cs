using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// A KVM guest: the native backend with other functions in some slots. The native patch function stays in charge, so rules that inline by
/// slot do so whatever function is there, and rules that inline by pointer no longer inline the slots changed.
/// </summary>
internal static class KvmBackend
{
    private const string Thunk = NativeFunctions.Thunk;

    /// <summary>The backend's name.</summary>
    public const string Name = "kvm";

    /// <summary>Makes the KVM backend for any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="bitness">32 or 64: what code the sites are in.</param>
    /// <param name="targets">Where the functions are, those of KVM (<c>kvm_…</c>) and the native ones.</param>
    /// <param name="options">What the host offers; <see langword="null"/> for several CPUs on a present host.</param>
    /// <param name="native">What kernels disagree on about the native backend; <see langword="null"/> for what fits the layout.</param>
    /// <returns>
    /// The backend. A slot stays native where KVM's function for it is not known: kernels older than the feature do not have it. Of the
    /// slots of a queued spinlock that the layout has either all are KVM's or none is, as they do not work with one another otherwise.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    public static Backend Create(
        OpsLayout layout, int bitness, SlotTargets targets, KvmOptions? options = null, NativeOptions? native = null)
    {
        Backend bare = NativeBackend.Create(layout, bitness, targets, native);
        options ??= new KvmOptions();
        return bare.Derive(Name, b =>
        {
            var changes = new SlotChanges(new PvSlots(layout), targets, b);
            ChangeTimeAndCpu(changes, options);
            ChangeMmu(changes, options);
            ChangeLocks(changes, options);
        });
    }

    private static void ChangeTimeAndCpu(SlotChanges changes, KvmOptions options)
    {
        if (Has(options, KvmFeatures.NopIoDelay))
        {
            // An empty function, but not the one that stands for "nothing": the call stays.
            changes.Put("cpu.io_delay", "kvm_io_delay");
        }

        if (Has(options, KvmFeatures.StealTime))
        {
            changes.Put("time.steal_clock", "kvm_steal_clock");
        }

        if (Has(options, KvmFeatures.ClockSource) || Has(options, KvmFeatures.ClockSource2))
        {
            changes.Put("time.sched_clock", "kvm_sched_clock_read");
        }
    }

    private static void ChangeMmu(SlotChanges changes, KvmOptions options)
    {
        if (Has(options, KvmFeatures.MmuOp))
        {
            foreach (string name in (string[])[
                "set_pte", "set_pte_at", "set_pmd", "set_pte_atomic", "pte_clear", "pmd_clear", "set_pud", "set_pgd"])
            {
                changes.Put("mmu." + name, "kvm_" + name);
            }

            changes.Put("mmu.flush_tlb_user", "kvm_flush_tlb");
            changes.Put("mmu.release_pte", "kvm_release_pt");
            changes.Put("mmu.release_pmd", "kvm_release_pt");
            changes.Put("mmu.release_pud", "kvm_release_pt");
            changes.Put("mmu.lazy_mode.enter", "kvm_enter_lazy_mmu");
            changes.Put("mmu.lazy_mode.leave", "kvm_leave_lazy_mmu");
        }

        // Kernels with flush_tlb_multi also ask for a second CPU to flush.
        bool worthwhile = !options.RealtimeHint && !options.HasMwait && (options.MultipleCpus || !changes.Slots.Has("mmu.flush_tlb_multi"));
        if (worthwhile && Has(options, KvmFeatures.PvTlbFlush) && Has(options, KvmFeatures.StealTime)
            && (changes.Put("mmu.flush_tlb_multi", "kvm_flush_tlb_multi") | changes.Put("mmu.flush_tlb_others", "kvm_flush_tlb_others")))
        {
            changes.Put("mmu.tlb_remove_table", "tlb_remove_table");
        }

        if (options.EncryptedMemory && Has(options, KvmFeatures.MigrationControl))
        {
            changes.Put("mmu.notify_page_enc_status_changed", "kvm_sev_hc_page_enc_status");
        }
    }

    private static void ChangeLocks(SlotChanges changes, KvmOptions options)
    {
        bool sleeping = Has(options, KvmFeatures.PvUnhalt) && options.MultipleCpus && !options.NoPvSpin && !options.RealtimeHint;
        if (sleeping)
        {
            changes.PutAll(
                ("lock.queued_spin_lock_slowpath", "__pv_queued_spin_lock_slowpath"),
                ("lock.queued_spin_unlock", Thunk + "__pv_queued_spin_unlock"),
                ("lock.wait", "kvm_wait"),
                ("lock.kick", "kvm_kick_cpu"));
            changes.PutAll(("lock.lock_spinning", Thunk + "kvm_lock_spinning"), ("lock.unlock_kick", "kvm_unlock_kick"));
        }

        // Until 5.10 only together with the locks, from 6.1 on by itself.
        if (Has(options, KvmFeatures.StealTime) && (sleeping || !changes.Slots.HasPatchHook))
        {
            changes.Put("lock.vcpu_is_preempted", Thunk + "__kvm_vcpu_is_preempted");
        }
    }

    private static bool Has(KvmOptions options, KvmFeatures feature) => (options.Features & feature) != 0;
}

/// <summary>
/// What a KVM host offers: CPUID leaf 0x40000001, register eax. The names are those of the bits that change slots, with a few that go with
/// them.
/// </summary>
[Flags]
public enum KvmFeatures : uint
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Bit 0: a clock, by the old register numbers.</summary>
    ClockSource = 1u << 0,

    /// <summary>Bit 1: no delay is needed after I/O.</summary>
    NopIoDelay = 1u << 1,

    /// <summary>Bit 2: page-table updates by hypercall (2.6.26 to 2.6.3x).</summary>
    MmuOp = 1u << 2,

    /// <summary>Bit 3: a clock, by the new register numbers.</summary>
    ClockSource2 = 1u << 3,

    /// <summary>Bit 5: stolen time is reported.</summary>
    StealTime = 1u << 5,

    /// <summary>Bit 7: a halted CPU can be woken by another (paravirtual spinlocks).</summary>
    PvUnhalt = 1u << 7,

    /// <summary>Bit 9: flushing the TLB of a CPU that does not run can be left to the host.</summary>
    PvTlbFlush = 1u << 9,

    /// <summary>Bit 17: live migration of encrypted guests (the guest reports which pages are encrypted).</summary>
    MigrationControl = 1u << 17,

    /// <summary>Bit 24: the clock is stable across CPUs.</summary>
    ClockSourceStable = 1u << 24,

    /// <summary>What present hosts offer to an ordinary guest, as far as slots are concerned.</summary>
    Usual = ClockSource | NopIoDelay | ClockSource2 | StealTime | PvUnhalt | PvTlbFlush | ClockSourceStable,

    /// <summary>What of that QEMU (10.1) lets a TDX guest have.</summary>
    UsualTdx = NopIoDelay | PvUnhalt | PvTlbFlush,
}

/// <summary>What decides which slots a KVM guest changes. The defaults are a guest with several CPUs on a present host.</summary>
public sealed record KvmOptions
{
    /// <summary>What the host offers.</summary>
    public KvmFeatures Features { get; init; } = KvmFeatures.Usual;

    /// <summary>
    /// Whether the host promises CPUs of their own (CPUID 0x40000001 edx, bit 0): neither paravirtual locks nor TLB flushes then.
    /// </summary>
    public bool RealtimeHint { get; init; }

    /// <summary>Whether more than one CPU is possible.</summary>
    public bool MultipleCpus { get; init; } = true;

    /// <summary>Whether the kernel was started with <c>nopvspin</c>.</summary>
    public bool NoPvSpin { get; init; }

    /// <summary>Whether the CPU has MWAIT: guests then rather wait themselves, and do not leave TLB flushes to the host.</summary>
    public bool HasMwait { get; init; }

    /// <summary>Whether the guest's memory is encrypted (SEV).</summary>
    public bool EncryptedMemory { get; init; }
}
