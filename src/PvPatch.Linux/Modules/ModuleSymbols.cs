using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Layouts;

namespace PvPatch.Linux.Modules;

/// <summary>What the symbols of a placed module stand for: its own, and those it takes from the kernel. Each is looked up once.</summary>
internal sealed class ModuleSymbols : IPlacedSymbols
{
    // KSYM_NAME_LEN; the kernel has no longer names.
    private const int MostNameLength = 512;

    private readonly ElfImage _module;
    private readonly ElfSymbolTable _table;
    private readonly VirtualAddress?[] _addresses;
    private readonly KernelImage _kernel;
    private readonly State[] _states;
    private readonly ulong[] _values;
    private long _nameBytes;

    public ModuleSymbols(ElfImage module, ElfSymbolTable table, VirtualAddress?[] addresses, KernelImage kernel)
    {
        _module = module;
        _table = table;
        _addresses = addresses;
        _kernel = kernel;
        _states = new State[table.Count];
        _values = new ulong[table.Count];
    }

    private enum State : byte
    {
        NotAsked,
        Known,
        Unknown,
    }

    public int Count => _table.Count;

    /// <summary>The value of a symbol, where it is known.</summary>
    public bool TryGetValue(int index, out ulong value)
    {
        if (_states[index] == State.NotAsked)
        {
            _states[index] = TryFind(index, out _values[index]) ? State.Known : State.Unknown;
        }

        value = _values[index];
        return _states[index] == State.Known;
    }

    /// <summary>A symbol's name for messages; that of its section where it has none.</summary>
    public string Describe(int index)
    {
        string name = _table.GetName(index);
        int section = _table[index].SectionIndex;
        return name.Length > 0 ? name : section > 0 && section < _module.Sections.Count
            ? $"the section {_module.Sections[section].Name}" : $"symbol {index}";
    }

    private bool TryFind(int index, out ulong value)
    {
        ElfSymbol symbol = _table[index];
        value = symbol.Value.Value;
        if (symbol.SectionIndex != 0 || index == 0)
        {
            // Values count from the start of the section; one that is not loaded has none. Common symbols are never in modules.
            bool inSection = symbol.SectionIndex > 0 && symbol.SectionIndex < _addresses.Length;
            VirtualAddress? section = inSection ? _addresses[symbol.SectionIndex] : null;
            value = unchecked(value + (section?.Value ?? 0));
            return section is not null || symbol.IsAbsolute || index == 0;
        }

        // Names may share bytes; together they are no longer than the file of an honest linker, and not looked up beyond that.
        ReadOnlySpan<byte> name = _table.GetNameUtf8(index);
        _nameBytes += name.Length;
        if (name.Length is > 0 and <= MostNameLength && _nameBytes <= _module.File.Length
            && TryFindInKernel(System.Text.Encoding.UTF8.GetString(name), out value))
        {
            return true;
        }

        value = 0;
        return symbol.Binding == ElfSymbolBinding.Weak;
    }

    private bool TryFindInKernel(string name, out ulong value)
    {
        bool found = TryFindTable(name, out VirtualAddress address)
            || (_kernel.Symbols is not null && _kernel.Symbols.TryGetAddress(name, out address));
        value = address.Value;
        return found;
    }

    /// <summary>The ops tables are known in kernels without symbols of data too: the kernel's own sites tell where they are.</summary>
    private bool TryFindTable(string name, out VirtualAddress address)
    {
        int slot = -1;
        if (_kernel.Era.Placement == SlotPlacement.OneTable && name is "pv_ops" or "paravirt_ops")
        {
            slot = 0;
        }
        else if (_kernel.Era.Placement == SlotPlacement.TableByTable && name.StartsWith("pv_", StringComparison.Ordinal))
        {
            slot = _kernel.Layout.Tables.FirstOrDefault(t => t.Slots.Count > 0 && name == TableLocator.SymbolOf(t.Name))?.Slots[0].Index
                ?? -1;
        }

        address = slot < 0 ? VirtualAddress.Zero : _kernel.SlotWords[slot];
        return !address.IsZero;
    }
}
