using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Objects;

/// <summary>The addresses of the tables and functions that <see cref="SiteNames"/> lists.</summary>
internal sealed class ListedSymbols
{
    private readonly SiteNames _names;
    private readonly int _word;
    private readonly List<(ulong Start, int First, int Count)> _tables = [];
    private readonly Dictionary<ulong, int> _functions = [];
    private readonly Dictionary<string, VirtualAddress> _standIns = [];

    private ListedSymbols(SiteNames names, int word)
    {
        _names = names;
        _word = word;
        SlotAddresses = new VirtualAddress[names.Layout.Count];
        SlotFunctions = new VirtualAddress[names.Layout.Count];
    }

    /// <summary>Addresses that names have for the search only, as the file does not define them.</summary>
    public IReadOnlyDictionary<string, VirtualAddress> StandIns => _standIns;

    /// <summary>Address of each slot's word; 0 where it is not known.</summary>
    public VirtualAddress[] SlotAddresses { get; }

    /// <summary>Address of each slot's function; 0 where it is not known.</summary>
    public VirtualAddress[] SlotFunctions { get; }

    /// <summary>Looks up all names.</summary>
    /// <param name="file">The file.</param>
    /// <param name="table">Its symbols.</param>
    /// <param name="placed">The file with addresses.</param>
    /// <param name="names">The names.</param>
    /// <param name="found">Takes errors, and a warning for each name the file does not have.</param>
    /// <param name="listed">The addresses.</param>
    public static bool TryResolve(
        ElfImage file, ElfSymbolTable table, PlacedObject placed, SiteNames names, List<PatchDiagnostic> found,
        [NotNullWhen(true)] out ListedSymbols? listed)
    {
        listed = null;
        var made = new ListedSymbols(names, file.Bitness / 8);
        if (!TryFind(file, table, placed, names, found, out Dictionary<string, (VirtualAddress? Address, ulong Size)>? symbols))
        {
            return false;
        }

        VirtualAddress end = (placed.Placement?.End ?? VirtualAddress.Zero) + 64;
        foreach ((string name, Range range) in names.Tables)
        {
            (int first, int count) = range.GetOffsetAndLength(names.Layout.Count);
            if (made.TryGet(name, symbols, found, count, ref end, out VirtualAddress address, out ulong size))
            {
                made.AddTable(address, first, size == 0 ? count : (int)Math.Min((ulong)count, size / (ulong)made._word));
            }
        }

        foreach ((string name, int slot) in names.Functions)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(slot, nameof(names));
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(slot, names.Layout.Count, nameof(names));
            if (made.TryGet(name, symbols, found, 1, ref end, out VirtualAddress address, out _)
                && !made.TryAddFunction(name, address, slot, found))
            {
                return false;
            }
        }

        listed = made;
        return true;
    }

    /// <summary>The slot of a word.</summary>
    /// <param name="address">The word's address, of the search.</param>
    /// <param name="slot">The slot; -1 for an address inside a table that is no word's.</param>
    public bool TryGetSlotOfWord(ulong address, out int slot)
    {
        foreach ((ulong start, int first, int count) in _tables)
        {
            ulong at = unchecked(address - start);
            if (at < (ulong)count * (ulong)_word)
            {
                slot = at % (ulong)_word == 0 ? first + (int)(at / (ulong)_word) : -1;
                return true;
            }
        }

        slot = -1;
        return false;
    }

    /// <summary>The slot of a function.</summary>
    /// <param name="address">The function's address, of the search.</param>
    /// <param name="slot">The slot.</param>
    public bool TryGetSlotOfFunction(ulong address, out int slot) => _functions.TryGetValue(address, out slot);

    /// <summary>
    /// The address of a name. One that the file uses and does not define has an address of its own, behind all sections.
    /// </summary>
    private bool TryGet(
        string name, Dictionary<string, (VirtualAddress? Address, ulong Size)> symbols, List<PatchDiagnostic> found, int words,
        ref VirtualAddress end, out VirtualAddress address, out ulong size)
    {
        if (!symbols.TryGetValue(name, out (VirtualAddress? Address, ulong Size) symbol))
        {
            found.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.SymbolUnknown, $"the file neither defines nor uses \"{name}\""));
            (address, size) = (VirtualAddress.Zero, 0);
            return false;
        }

        size = symbol.Size;
        if (symbol.Address is null)
        {
            if (_standIns.TryAdd(name, end))
            {
                end += (words + 1) * (long)_word;
            }
        }

        address = symbol.Address ?? _standIns[name];
        return true;
    }

    private bool IsStandIn(VirtualAddress address) => _standIns.ContainsValue(address);

    private void AddTable(VirtualAddress address, int first, int count)
    {
        _tables.Add((address.Value, first, count));
        for (int i = 0, known = IsStandIn(address) ? 0 : count; i < known; i++)
        {
            SlotAddresses[first + i] = address + (i * _word);
        }
    }

    private bool TryAddFunction(string name, VirtualAddress address, int slot, List<PatchDiagnostic> found)
    {
        bool taken = _functions.ContainsValue(slot);
        _functions[address.Value] = slot;
        SlotFunctions[slot] = IsStandIn(address) ? VirtualAddress.Zero : address;
        if (taken)
        {
            found.Add(PatchDiagnostic.Error(
                DiagnosticCodes.RecordSlot, $"\"{name}\" is given the slot {_names.Layout[slot]}, which has a function already") with
            {
                Help = "One function does a slot's operation by default; give the other one a slot of its own.",
            });
        }

        return !taken;
    }

    /// <summary>
    /// The address of each name: <see langword="null"/> where the file uses it and does not define it. A global symbol goes before local
    /// ones.
    /// </summary>
    private static bool TryFind(
        ElfImage file, ElfSymbolTable table, PlacedObject placed, SiteNames names, List<PatchDiagnostic> found,
        [NotNullWhen(true)] out Dictionary<string, (VirtualAddress? Address, ulong Size)>? symbols)
    {
        var wanted = new HashSet<string>(names.Tables.Keys.Concat(names.Functions.Keys), StringComparer.Ordinal);
        int longest = wanted.Count == 0 ? 0 : wanted.Max(static n => System.Text.Encoding.UTF8.GetByteCount(n));
        var local = new Dictionary<string, (VirtualAddress Address, ulong Size, bool IsAmbiguous)>();
        symbols = new Dictionary<string, (VirtualAddress? Address, ulong Size)>();
        var global = new HashSet<string>();
        for (int i = 1; i < table.Count; i++)
        {
            ReadOnlySpan<byte> utf8 = table.GetNameUtf8(i);
            if (utf8.IsEmpty || utf8.Length > longest || table.GetName(i) is not string name || !wanted.Contains(name))
            {
                continue;
            }

            ElfSymbol symbol = table[i];
            VirtualAddress? address = AddressOf(file, placed, symbol);
            if (address is null || symbol.Binding != ElfSymbolBinding.Local)
            {
                if (address is not null || !symbols.ContainsKey(name))
                {
                    symbols[name] = (address, symbol.Size);
                }

                if (address is not null)
                {
                    global.Add(name);
                }
            }
            else
            {
                bool isSecond = local.TryGetValue(name, out (VirtualAddress Address, ulong Size, bool IsAmbiguous) before);
                local[name] = (address.Value, symbol.Size, isSecond && (before.IsAmbiguous || before.Address != address));
            }
        }

        foreach ((string name, (VirtualAddress address, ulong size, bool isAmbiguous)) in local)
        {
            if (global.Contains(name))
            {
                continue;
            }

            symbols[name] = (address, size);
            if (isAmbiguous)
            {
                found.Add(PatchDiagnostic.Error(
                    KernelDiagnosticCodes.SiteNameAmbiguous, $"several symbols are named \"{name}\", none of them global") with
                {
                    Address = address,
                    Help = "Name it apart in its source, or make the one that is meant global.",
                });
                return false;
            }
        }

        return true;
    }

    private static VirtualAddress? AddressOf(ElfImage file, PlacedObject placed, ElfSymbol symbol)
    {
        if (placed.Placement is null || symbol.IsAbsolute)
        {
            return symbol.SectionIndex == 0 ? null : symbol.Value;
        }

        VirtualAddress? section = symbol.SectionIndex > 0 && symbol.SectionIndex < file.Sections.Count
            ? placed.Placement.Addresses[symbol.SectionIndex] : null;
        return section is VirtualAddress start ? new VirtualAddress(unchecked(start.Value + symbol.Value.Value)) : null;
    }
}
