using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// A Hyper-V guest: the native backend with other functions in some slots, by what the host offers and recommends. How many CPUs there are
/// makes no difference, not even to spinlocks (measured on booted kernels, 5.10 to 7.2).
/// </summary>
internal static class HyperVBackend
{
    /// <summary>The backend's name.</summary>
    public const string Name = "hyperv";

    /// <summary>Makes the Hyper-V backend for any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="bitness">32 or 64: what code the sites are in.</param>
    /// <param name="targets">Where the functions are, those of Hyper-V (<c>hyperv_…</c>, <c>hv_…</c>) and the native ones.</param>
    /// <param name="options">What the host offers; <see langword="null"/> for a present host.</param>
    /// <param name="native">What kernels disagree on about the native backend; <see langword="null"/> for what fits the layout.</param>
    /// <returns>
    /// The backend. A slot stays native where Hyper-V's function for it is not known: kernels older than the feature do not have it. Of the
    /// slots of a queued spinlock that the layout has either all are Hyper-V's or none is, as they do not work with one another otherwise.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    public static Backend Create(
        OpsLayout layout, int bitness, SlotTargets targets, HyperVOptions? options = null, NativeOptions? native = null)
    {
        Backend bare = NativeBackend.Create(layout, bitness, targets, native);
        options ??= new HyperVOptions();
        return bare.Derive(Name, b =>
        {
            var changes = new SlotChanges(new PvSlots(layout), targets, b);
            ChangeTime(changes, options.Features);
            if (options.Hints.HasFlag(HyperVHints.RemoteTlbFlush)
                && (changes.Put("mmu.flush_tlb_multi", "hyperv_flush_tlb_multi") | changes.Put(
                    "mmu.flush_tlb_others", "hyperv_flush_tlb_others")))
            {
                changes.Put("mmu.tlb_remove_table", "tlb_remove_table");
            }

            // A waiting CPU idles by a register and is woken by an interrupt: both must be there.
            if (!options.NoPvSpin && options.Features.HasFlag(HyperVFeatures.GuestIdle) && options.Hints.HasFlag(HyperVHints.ClusterIpi))
            {
                ChangeLocks(changes);
            }
        });
    }

    // A slot to 5.10; a static call since, which is no paravirt site.
    private static void ChangeTime(SlotChanges changes, HyperVFeatures features)
    {
        if (features.HasFlag(HyperVFeatures.ReferenceTsc))
        {
            changes.Put("time.sched_clock", "read_hv_sched_clock_tsc");
        }
        else if (features.HasFlag(HyperVFeatures.ReferenceCounter))
        {
            changes.Put("time.sched_clock", "read_hv_sched_clock_msr");
        }
    }

    private static void ChangeLocks(SlotChanges changes)
    {
        bool changed = changes.PutAll(
            ("lock.queued_spin_lock_slowpath", "__pv_queued_spin_lock_slowpath"),
            ("lock.queued_spin_unlock", NativeFunctions.Thunk + "__pv_queued_spin_unlock"),
            ("lock.wait", "hv_qlock_wait"),
            ("lock.kick", "hv_qlock_kick"));
        if (changed)
        {
            changes.Put("lock.vcpu_is_preempted", NativeFunctions.Thunk + "hv_vcpu_is_preempted");
        }
    }
}

/// <summary>
/// What a Hyper-V host lets a guest use: CPUID leaf 0x40000003, register eax. The names are those of the bits that change slots.
/// </summary>
[Flags]
public enum HyperVFeatures : uint
{
    /// <summary>Nothing that changes a slot.</summary>
    None = 0,

    /// <summary>Bit 1: a counter of time in a register.</summary>
    ReferenceCounter = 1u << 1,

    /// <summary>Bit 9: a page that turns the time-stamp counter into that time.</summary>
    ReferenceTsc = 1u << 9,

    /// <summary>Bit 10: a register to wait by until there is something to do. Paravirtual spinlocks need it.</summary>
    GuestIdle = 1u << 10,

    /// <summary>What present hosts offer.</summary>
    Usual = ReferenceCounter | ReferenceTsc | GuestIdle,
}

/// <summary>
/// What a Hyper-V host recommends: CPUID leaf 0x40000004, register eax. The names are those of the bits that change slots.
/// </summary>
[Flags]
public enum HyperVHints : uint
{
    /// <summary>Nothing that changes a slot.</summary>
    None = 0,

    /// <summary>Bit 2: leave flushing the TLBs of other CPUs to the host.</summary>
    RemoteTlbFlush = 1u << 2,

    /// <summary>Bit 10: send interrupts to other CPUs by hypercall. Paravirtual spinlocks wake a CPU that way.</summary>
    ClusterIpi = 1u << 10,

    /// <summary>What present hosts recommend.</summary>
    Usual = RemoteTlbFlush | ClusterIpi,
}

/// <summary>What decides which slots a Hyper-V guest changes. The defaults are a present host.</summary>
public sealed record HyperVOptions
{
    /// <summary>What the guest may use.</summary>
    public HyperVFeatures Features { get; init; } = HyperVFeatures.Usual;

    /// <summary>What the host recommends.</summary>
    public HyperVHints Hints { get; init; } = HyperVHints.Usual;

    /// <summary>
    /// Whether the kernel was started with <c>hv_nopvspin</c>. The <c>nopvspin</c> of other guests is not looked at on Hyper-V.
    /// </summary>
    public bool NoPvSpin { get; init; }
}
