using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// A KVM guest: the native backend with other functions in some slots. The native patch function stays in charge, so rules that inline by slot do
/// so whatever function is there, and rules that inline by pointer no longer inline the slots changed.
/// </summary>
public static class KvmBackend
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
    /// The backend. A slot stays native where KVM's function for it is not known: kernels older than the feature do not have it. Of the four
    /// slots of a queued spinlock either all are KVM's or none is, as they do not work with one another otherwise.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    public static Backend Create(OpsLayout layout, int bitness, SlotTargets targets, KvmOptions? options = null, NativeOptions? native = null)
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
            foreach (string name in (string[])["set_pte", "set_pte_at", "set_pmd", "set_pte_atomic", "pte_clear", "pmd_clear", "set_pud", "set_pgd"])
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
