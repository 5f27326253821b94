using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>A VMware guest, without VMI: the native backend, but no delay after I/O, and VMware's clocks where they have slots.</summary>
internal static class VmwareBackend
{
    /// <summary>The backend's name.</summary>
    public const string Name = "vmware";

    /// <summary>Makes the VMware backend for any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="bitness">32 or 64: what code the sites are in.</param>
    /// <param name="targets">
    /// Where the functions are, those of VMware (<c>vmware_…</c>), the one that does nothing and the native ones.
    /// </param>
    /// <param name="options">What the host answers; <see langword="null"/> for a present host.</param>
    /// <param name="native">What kernels disagree on about the native backend; <see langword="null"/> for what fits the layout.</param>
    /// <returns>
    /// The backend. A clock stays native where VMware's function for it is not known. In 7.2 nothing is left that it changes.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    public static Backend Create(
        OpsLayout layout, int bitness, SlotTargets targets, VmwareOptions? options = null, NativeOptions? native = null)
    {
        Backend bare = NativeBackend.Create(layout, bitness, targets, native);
        options ??= new VmwareOptions();
        return bare.Derive(Name, b =>
        {
            var changes = new SlotChanges(new PvSlots(layout), targets, b);

            // The function that stands for "nothing", unlike KVM's: the site becomes nops.
            changes.PutNop("cpu.io_delay");
            if (options.Clock >= VmwareClock.Frequency && !options.NoSchedClock)
            {
                changes.Put("time.sched_clock", "vmware_sched_clock");
            }

            if (options.Clock >= VmwareClock.StolenTime)
            {
                changes.Put("time.steal_clock", "vmware_steal_clock");
            }
        });
    }
}

/// <summary>What a VMware host answers about clocks, each with those before it.</summary>
public enum VmwareClock
{
    /// <summary>Nothing: the guest measures its own clock.</summary>
    None,

    /// <summary>How fast the time-stamp counter runs (the backdoor's command 45).</summary>
    Frequency,

    /// <summary>How much time was stolen, too (command 91), also where reporting it is switched off.</summary>
    StolenTime,
}

/// <summary>What decides which slots a VMware guest changes. The defaults are a present host.</summary>
public sealed record VmwareOptions
{
    /// <summary>What the host answers about clocks. Only kernels to 5.10 have slots for that.</summary>
    public VmwareClock Clock { get; init; } = VmwareClock.StolenTime;

    /// <summary>Whether the kernel was started with <c>no-vmw-sched-clock</c>.</summary>
    public bool NoSchedClock { get; init; }
}
