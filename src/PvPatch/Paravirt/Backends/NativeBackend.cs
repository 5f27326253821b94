using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>Bare hardware: privileged instructions in place of calls, nothing where a hypervisor would want to know, native functions for the rest.</summary>
public static class NativeBackend
{
    /// <summary>The backend's name.</summary>
    public const string Name = "native";

    /// <summary>Makes the native backend for any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout: the standard one, one read from a kernel image, or one of 2.6.22 without tables.</param>
    /// <param name="bitness">32 or 64: what code the sites are in.</param>
    /// <param name="targets">Where the native functions are.</param>
    /// <param name="options">What kernels disagree on; <see langword="null"/> for what fits the layout.</param>
    /// <returns>
    /// The backend. Slots with a body also have the function as target where it is known; the bodies of <c>lock.queued_spin_unlock</c> and
    /// <c>lock.vcpu_is_preempted</c> stand for that function, for rules that go by pointer. Functions not known leave their slots missing.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    public static Backend Create(OpsLayout layout, int bitness, SlotTargets targets, NativeOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(targets);
        PvBitness.Check(bitness);
        var slots = new PvSlots(layout);
        var native = new NativeOperations(slots, bitness, targets, options ?? new NativeOptions());
        return Backend.Create(Name, layout, b =>
        {
            foreach ((string name, OpSlot slot) in slots.All)
            {
                b.Set(slot.Name, native.WithBody(name, slot));
            }
        });
    }
}
