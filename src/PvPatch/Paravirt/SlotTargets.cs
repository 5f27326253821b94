using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Paravirt;

/// <summary>
/// Where the functions are that the standard backends put into slots: run addresses by the names the kernel gives its functions
/// (<c>native_set_pte</c>, <c>xen_set_pte</c>, <c>__raw_callee_save_xen_pte_val</c>). Immutable.
/// </summary>
/// <remarks>
/// A function that is not known is no error: its slot becomes missing, unless it has a body, does nothing or is an identity. An
/// address of 0 counts as not known.
/// </remarks>
public sealed class SlotTargets
{
    private readonly Func<string, VirtualAddress?> _resolve;
    private readonly Dictionary<string, VirtualAddress> _nativeSlots;

    /// <summary>Asks a function of the host for each name.</summary>
    /// <param name="resolve">
    /// Gives the run address of a function by its exact name, or <see langword="null"/>. It is called while a backend is made, with
    /// several names for one slot (functions were renamed between kernel versions; the first known name counts), never later.
    /// </param>
    public SlotTargets(Func<string, VirtualAddress?> resolve)
    {
        ArgumentNullException.ThrowIfNull(resolve);
        _resolve = resolve;
        _nativeSlots = [];
    }

    /// <summary>Looks names up in a symbol table.</summary>
    /// <param name="symbols">Names with run addresses; copied. Of a name given twice the last counts.</param>
    public SlotTargets(IEnumerable<KeyValuePair<string, VirtualAddress>> symbols)
        : this(Lookup(symbols))
    {
    }

    private SlotTargets(Func<string, VirtualAddress?> resolve, Dictionary<string, VirtualAddress> nativeSlots)
    {
        _resolve = resolve;
        _nativeSlots = nativeSlots;
    }

    /// <summary>Knows no function: only bodies, nops and identities remain.</summary>
    public static SlotTargets None { get; } = new(static _ => null);

    /// <summary>
    /// The same targets, with the contents of a kernel image's ops table. An image holds the native functions there, so a stripped
    /// image needs no symbols for the native backend (nor for what other backends leave native).
    /// </summary>
    /// <param name="slots">
    /// Full slot names as in the layout, with the addresses the image holds; 0 for a null pointer. They go before symbols. To let nops
    /// and identities be told from ordinary functions, the names <c>_paravirt_nop</c> (<c>nop_func</c>) and
    /// <c>_paravirt_ident_64</c> should be known too; where they are not, the slot's usual native meaning counts.
    /// </param>
    /// <returns>New targets.</returns>
    public SlotTargets WithNativeSlots(IEnumerable<KeyValuePair<string, VirtualAddress>> slots)
    {
        ArgumentNullException.ThrowIfNull(slots);
        var all = new Dictionary<string, VirtualAddress>(_nativeSlots, StringComparer.Ordinal);
        foreach (KeyValuePair<string, VirtualAddress> slot in slots)
        {
            all[slot.Key] = slot.Value;
        }

        return new SlotTargets(_resolve, all);
    }

    /// <summary>The run address of a function.</summary>
    /// <param name="symbol">Its exact name.</param>
    /// <returns>The address, <see langword="null"/> where it is not known.</returns>
    public VirtualAddress? Find(string symbol)
    {
        ArgumentException.ThrowIfNullOrEmpty(symbol);
        return _resolve(symbol) is VirtualAddress address && !address.IsZero ? address : null;
    }

    /// <summary>The first of several names that is known.</summary>
    internal bool TryFind(ReadOnlySpan<string> symbols, [NotNullWhen(true)] out string? name, out VirtualAddress address)
    {
        foreach (string symbol in symbols)
        {
            if (Find(symbol) is VirtualAddress found)
            {
                name = symbol;
                address = found;
                return true;
            }
        }

        name = null;
        address = VirtualAddress.Zero;
        return false;
    }

    /// <summary>What the image's ops table holds in a slot, where the host said so; may be 0.</summary>
    internal bool TryFindNativeSlot(string slot, out VirtualAddress address) => _nativeSlots.TryGetValue(slot, out address);

    private static Func<string, VirtualAddress?> Lookup(IEnumerable<KeyValuePair<string, VirtualAddress>> symbols)
    {
        ArgumentNullException.ThrowIfNull(symbols);
        var table = new Dictionary<string, VirtualAddress>(StringComparer.Ordinal);
        foreach (KeyValuePair<string, VirtualAddress> symbol in symbols)
        {
            table[symbol.Key] = symbol.Value;
        }

        return name => table.TryGetValue(name, out VirtualAddress address) ? address : null;
    }
}
