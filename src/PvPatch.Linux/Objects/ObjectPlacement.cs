using System.Diagnostics.CodeAnalysis;
using System.Numerics;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Objects;

/// <summary>Gives the loaded sections of an object file addresses, one behind the other in the order of the file.</summary>
internal sealed class ObjectPlacement
{
    private const ulong MostAlignment = 1 << 30;

    private ObjectPlacement(VirtualAddress?[] addresses, VirtualAddress end)
    {
        Addresses = addresses;
        End = end;
    }

    /// <summary>The address of each section, by its index; none for those that are not loaded.</summary>
    public VirtualAddress?[] Addresses { get; }

    /// <summary>The first address behind all sections.</summary>
    public VirtualAddress End { get; }

    /// <summary>Places the sections.</summary>
    /// <param name="file">The object file.</param>
    /// <param name="start">The address of the first section.</param>
    /// <param name="placement">Where they lie.</param>
    /// <param name="error">PV6180.</param>
    public static bool TryPlace(
        ElfImage file, VirtualAddress start, [NotNullWhen(true)] out ObjectPlacement? placement,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        placement = null;
        var addresses = new VirtualAddress?[file.Sections.Count];
        UInt128 at = start.Value;
        foreach (ElfSection section in file.Sections)
        {
            if (!section.IsAllocated || section.Type == ElfSectionType.Null || (section.Flags & ElfSectionAttributes.ThreadLocal) != 0)
            {
                continue;
            }

            ulong alignment = Math.Max(section.Alignment, 1);
            bool aligned = BitOperations.IsPow2(alignment) && alignment <= MostAlignment;
            at = aligned ? (at + alignment - 1) / alignment * alignment : at;
            if (!aligned || at > ulong.MaxValue || !FileRange.FitsAddressSpace((ulong)at, section.Size, file.Bitness))
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.ObjectBadPlacement, $"the section {section.Name} of the object file cannot be placed") with
                {
                    FileOffset = section.FileOffset,
                    Found = $"{FileRange.Hex(section.Size)} bytes at 0x{at:x}, aligned to {FileRange.Hex(section.Alignment)}",
                    Expected = $"an alignment up to {FileRange.Hex(MostAlignment)}, an end within {file.Bitness}-bit addresses",
                };
                return false;
            }

            addresses[section.Index] = new VirtualAddress((ulong)at);
            at += section.Size;
        }

        error = null;
        placement = new ObjectPlacement(addresses, new VirtualAddress((ulong)UInt128.Min(at, ulong.MaxValue)));
        return true;
    }
}

/// <summary>What the symbols of a placed object file stand for: places in it, and addresses that the caller knows.</summary>
internal sealed class ObjectSymbols : IPlacedSymbols
{
    private readonly ElfSymbolTable? _table;
    private readonly VirtualAddress?[] _addresses;
    private readonly Dictionary<int, ulong> _known = [];

    public ObjectSymbols(
        ElfImage file, ElfSymbolTable? table, VirtualAddress?[] addresses, IReadOnlyDictionary<string, VirtualAddress> known)
    {
        _table = table;
        _addresses = addresses;
        long names = 0;
        for (int i = 1; i < Count && known.Count > 0; i++)
        {
            // Names may share bytes; together they are no longer than the file of an honest assembler, and not looked up beyond that.
            ReadOnlySpan<byte> name = table![i].SectionIndex == 0 ? table.GetNameUtf8(i) : default;
            names += name.Length;
            if (!name.IsEmpty && names <= file.File.Length
                && known.TryGetValue(System.Text.Encoding.UTF8.GetString(name), out VirtualAddress address))
            {
                _known.Add(i, address.Value);
            }
        }
    }

    public int Count => _table?.Count ?? 0;

    public bool TryGetValue(int index, out ulong value)
    {
        ElfSymbol symbol = _table![index];
        value = symbol.Value.Value;
        if (symbol.SectionIndex != 0)
        {
            VirtualAddress? section = symbol.SectionIndex > 0 && symbol.SectionIndex < _addresses.Length
                ? _addresses[symbol.SectionIndex] : null;
            value = unchecked(value + (section?.Value ?? 0));
            return section is not null || symbol.IsAbsolute;
        }

        return _known.TryGetValue(index, out value) || index == 0 || symbol.Binding == ElfSymbolBinding.Weak;
    }

    /// <summary>A symbol's name for messages.</summary>
    public string Describe(int index)
    {
        string name = _table!.GetName(index);
        return name.Length > 0 ? name : $"symbol {index}";
    }
}
