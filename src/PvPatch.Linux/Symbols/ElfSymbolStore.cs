using PvPatch.Linux.Files;

namespace PvPatch.Linux.Symbols;

/// <summary>
/// The defined symbols of an ELF symbol table whose names are printable, sorted by address; four bytes a symbol beside the file itself.
/// </summary>
internal sealed class ElfSymbolStore : SymbolStore
{
    private readonly ElfImage _image;
    private readonly ElfSymbolTable _table;
    private readonly int[] _indices;

    public ElfSymbolStore(ElfImage image, ElfSymbolTable table)
    {
        _image = image;
        _table = table;
        var indices = new List<int>();
        var addresses = new List<ulong>();
        for (int i = 1; i < table.Count; i++)
        {
            if (IsWanted(table, i))
            {
                indices.Add(i);
                addresses.Add(table[i].Value.Value);
            }
        }

        _indices = [.. indices];
        SortByAddress([.. addresses], _indices);
    }

    public override int Count => _indices.Length;

    public override ulong GetAddress(int index) => _table[_indices[index]].Value.Value;

    public override char GetType(int index)
    {
        ElfSymbol symbol = _table[_indices[index]];
        char letter = Letter(symbol);
        return symbol.Binding == ElfSymbolBinding.Local ? char.ToLowerInvariant(letter) : letter;
    }

    public override ReadOnlySpan<byte> GetName(int index, Span<byte> scratch) => _table.GetNameUtf8(_indices[index]);

    /// <summary>Sorts, and keeps the order of the file where addresses are equal.</summary>
    private static void SortByAddress(ulong[] addresses, int[] indices)
    {
        Array.Sort(addresses, indices);
        for (int start = 0, end; start < indices.Length; start = end)
        {
            for (end = start + 1; end < indices.Length && addresses[end] == addresses[start]; end++)
            {
            }

            Array.Sort(indices, start, end - start);
        }
    }

    private static bool IsWanted(ElfSymbolTable table, int index)
    {
        ElfSymbol symbol = table[index];
        ReadOnlySpan<byte> name = table.GetNameUtf8(index);

        // Names that start with .L are labels inside functions.
        return symbol.SectionIndex != 0
            && symbol.Type is not (ElfSymbolType.Section or ElfSymbolType.File)
            && IsName(name)
            && !name.StartsWith(".L"u8);
    }

    /// <summary>The letter nm prints for a global symbol of this kind.</summary>
    private char Letter(ElfSymbol symbol)
    {
        if (symbol.Binding == ElfSymbolBinding.Weak)
        {
            return symbol.Type == ElfSymbolType.Data ? 'V' : 'W';
        }

        if (symbol.SectionIndex < 0 || symbol.SectionIndex >= _image.Sections.Count)
        {
            return 'A';
        }

        ElfSection section = _image.Sections[symbol.SectionIndex];
        return section.IsExecutable ? 'T'
            : !section.HasFileContent ? 'B'
            : (section.Flags & ElfSectionAttributes.Write) != 0 ? 'D' : 'R';
    }
}
