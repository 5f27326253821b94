using System.Diagnostics.CodeAnalysis;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// A layout seen through the standard names. Kernels until 2.6.23 had one struct without tables (<c>irq_disable</c>); its slots answer to
/// the later names (<c>irq.irq_disable</c>), so one set of backends serves all.
/// </summary>
internal sealed class PvSlots
{
    private static readonly Dictionary<string, string> s_byShortName = ByShortName();

    private readonly Dictionary<string, OpSlot> _slots = new(StringComparer.Ordinal);

    public PvSlots(OpsLayout layout)
    {
        foreach (OpSlot slot in layout.Slots)
        {
            _slots.TryAdd(NameOf(slot), slot);
        }
    }

    /// <summary>Every slot with its standard name.</summary>
    public IEnumerable<KeyValuePair<string, OpSlot>> All => _slots;

    /// <summary>
    /// Whether 32-bit page-table entries have 64 bits. With PAE there are three levels, so that the pmd slots exist; the values then travel
    /// as the pair edx:eax.
    /// </summary>
    public bool HasWideEntries => Has("mmu.pmd_val") || Has("mmu.set_pte_atomic");

    /// <summary>
    /// Whether the layout is that of a kernel without a patch hook (6.1 and later), which inlines through alternatives. The standard layout
    /// and all until 5.10 have the hook.
    /// </summary>
    public bool HasPatchHook => Has("init.patch");

    public bool Has(string name) => _slots.ContainsKey(name);

    public bool TryGet(string name, [NotNullWhen(true)] out OpSlot? slot) => _slots.TryGetValue(name, out slot);

    private static string NameOf(OpSlot slot) =>
        slot.Table.Length == 0 && s_byShortName.TryGetValue(slot.ShortName, out string? name) ? name : slot.Name;

    private static Dictionary<string, string> ByShortName()
    {
        var names = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            // Two calls in one site, 2.6.20 and 2.6.21 only.
            ["save_fl_irq_disable"] = "irq.save_fl_irq_disable",
        };

        // "patch" and the lazy_mode pairs are not unique, but no layout without tables calls them so (it has set_lazy_mode).
        foreach (OpSlot slot in StandardLayout.X64.Slots.Concat(StandardLayout.I386.Slots))
        {
            names.TryAdd(slot.ShortName, slot.Name);
        }

        return names;
    }
}

/// <summary>
/// What a guest changes of another backend: slots by their standard names, functions by the kernel's. What the kernel lacks stays as it
/// was.
/// </summary>
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

    /// <summary>
    /// Puts functions that do not work without one another into those of their slots that there are: all or none. A slot that the layout
    /// lacks says nothing of the others: from 7.3 on the lock's slow path and its unlock are static calls, waiting and kicking still slots.
    /// </summary>
    /// <returns>Whether any was put.</returns>
    public bool PutAll(params ReadOnlySpan<(string Name, string Symbol)> changes)
    {
        foreach ((string name, string symbol) in changes)
        {
            if (slots.Has(name) && targets.Find(symbol) is null)
            {
                return false;
            }
        }

        bool any = false;
        foreach ((string name, string symbol) in changes)
        {
            any |= Put(name, symbol);
        }

        return any;
    }

    /// <summary>Puts the function that stands for "nothing", which the patcher makes nops of.</summary>
    public void PutNop(string name)
    {
        if (slots.TryGet(name, out OpSlot? slot))
        {
            builder.Set(slot.Name,
                targets.TryFind(NativeFunctions.NopNames, out _, out VirtualAddress nop) ? Operation.Nop.WithTarget(nop) : Operation.Nop);
        }
    }
}
