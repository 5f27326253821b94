using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>What a guest changes of another backend: slots by their standard names, functions by the kernel's. What the kernel lacks stays as it was.</summary>
internal sealed class SlotChanges(PvSlots slots, SlotTargets targets, BackendBuilder builder)
{
    public PvSlots Slots => slots;

    /// <summary>Puts a function into a slot.</summary>
    /// <returns>Whether the slot and the function are there.</returns>
    public bool Put(string name, string symbol)
    {
        if (!slots.TryGet(name, out OpSlot? slot) || targets.Find(symbol) is not VirtualAddress target)
        {
            return false;
        }

        builder.Retarget(slot.Name, target, symbol);
        return true;
    }

    /// <summary>Puts functions that do not work without one another: all or none.</summary>
    /// <returns>Whether they are all there.</returns>
    public bool PutAll(params ReadOnlySpan<(string Name, string Symbol)> changes)
    {
        foreach ((string name, string symbol) in changes)
        {
            if (!slots.Has(name) || targets.Find(symbol) is null)
            {
                return false;
            }
        }

        foreach ((string name, string symbol) in changes)
        {
            Put(name, symbol);
        }

        return true;
    }

    /// <summary>Puts the function that stands for "nothing", which the patcher makes nops of.</summary>
    public void PutNop(string name)
    {
        if (slots.TryGet(name, out OpSlot? slot))
        {
            builder.Set(slot.Name, targets.TryFind(NativeFunctions.NopNames, out _, out VirtualAddress nop) ? Operation.Nop.WithTarget(nop) : Operation.Nop);
        }
    }
}
