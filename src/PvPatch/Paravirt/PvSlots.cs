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
    /// Whether 32-bit page-table entries have 64 bits. With PAE there are three levels, so that the pmd slots exist; the values then travel as the
    /// pair edx:eax.
    /// </summary>
    public bool HasWideEntries => Has("mmu.pmd_val") || Has("mmu.set_pte_atomic");

    /// <summary>
    /// Whether the layout is that of a kernel without a patch hook (6.1 and later), which inlines through alternatives. The standard layout and
    /// all until 5.10 have the hook.
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
