using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// A Xen paravirtual guest: nearly every slot is a function of Xen's. Guests with hardware virtualisation (HVM, PVH) are native but for
/// a few slots; <see cref="Backend.Derive"/> makes them of the native backend.
/// </summary>
public static class XenBackend
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
    /// <exception cref="ArgumentException">The inline forms asked for do not exist at this bitness, or their data is out of reach.</exception>
    public static Backend Create(OpsLayout layout, int bitness, SlotTargets targets, XenOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(targets);
        PvBitness.Check(bitness);
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
