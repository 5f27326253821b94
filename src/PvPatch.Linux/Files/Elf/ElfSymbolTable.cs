using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using SystemEncoding = System.Text.Encoding;

namespace PvPatch.Linux.Files;

/// <summary>The symbol table (<c>.symtab</c>) of an <see cref="ElfImage"/>. Nothing is decoded before it is asked for.</summary>
internal sealed class ElfSymbolTable
{
    private const int SectionIndexExtended = 0xffff;
    private const int SectionIndexReserved = 0xff00;
    private const int SectionIndexAbsolute = 0xfff1;

    private readonly ReadOnlyMemory<byte> _symbols;
    private readonly ReadOnlyMemory<byte> _extendedIndices;
    private readonly ElfStringTable _names;
    private readonly bool _is64;

    private ElfSymbolTable(ReadOnlyMemory<byte> symbols, ReadOnlyMemory<byte> extendedIndices, ElfStringTable names, bool is64)
    {
        _symbols = symbols;
        _extendedIndices = extendedIndices;
        _names = names;
        _is64 = is64;
        Count = symbols.Length / EntrySize;
    }

    /// <summary>The number of symbols, the unused one at index 0 included.</summary>
    public int Count { get; }

    private int EntrySize => _is64 ? 24 : 16;

    /// <summary>One symbol.</summary>
    /// <param name="index">From 0 to <see cref="Count"/> - 1.</param>
    public ElfSymbol this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(index);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
            ReadOnlySpan<byte> record = _symbols.Span.Slice(index * EntrySize, EntrySize);
            var fields = new ElfFields(record, _is64);
            return new ElfSymbol
            {
                NameOffset = fields.Word(0, 0),
                Value = fields.Native(4, 8),
                Size = fields.Native(8, 16),
                Type = (ElfSymbolType)(record[_is64 ? 4 : 12] & 0xf),
                Binding = (ElfSymbolBinding)(record[_is64 ? 4 : 12] >> 4),
                SectionIndex = SectionIndexOf(index, fields.Half(14, 6)),
                IsAbsolute = fields.Half(14, 6) == SectionIndexAbsolute,
            };
        }
    }

    /// <summary>The name of a symbol as the file's bytes.</summary>
    /// <param name="index">From 0 to <see cref="Count"/> - 1.</param>
    /// <returns>The name in UTF-8, without a terminator; empty for a symbol without a name.</returns>
    public ReadOnlySpan<byte> GetNameUtf8(int index)
    {
        // Offsets were checked when the table was made; only an absurdly long name is left, and it is as good as none.
        return _names.TryGetName(this[index].NameOffset, out ReadOnlySpan<byte> name) ? name : default;
    }

    /// <summary>The name of a symbol.</summary>
    /// <param name="index">From 0 to <see cref="Count"/> - 1.</param>
    /// <returns>The name; empty for a symbol without one.</returns>
    public string GetName(int index) => SystemEncoding.UTF8.GetString(GetNameUtf8(index));

    /// <summary>Looks for the first defined symbol of a name; walks over the whole table.</summary>
    /// <param name="name">The name.</param>
    /// <param name="symbol">The symbol.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryFind(string name, out ElfSymbol symbol)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ReadOnlySpan<byte> wanted = SystemEncoding.UTF8.GetBytes(name);
        for (int i = 1; i < Count; i++)
        {
            if (GetNameUtf8(i).SequenceEqual(wanted) && this[i].SectionIndex != 0)
            {
                symbol = this[i];
                return true;
            }
        }

        symbol = default;
        return false;
    }

    internal static bool TryRead(
        ElfImage image, [NotNullWhen(true)] out ElfSymbolTable? table, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        table = null;
        ElfSection? section = image.Sections.FirstOrDefault(static s => s.Type == ElfSectionType.SymbolTable);
        if (section is null)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.ElfNoSymbols, "The ELF file has no symbol table") with
            {
                Help = "Kernels of distributions are stripped; give a System.map or a kallsyms listing instead",
            };
            return false;
        }

        int entrySize = image.Bitness == 64 ? 24 : 16;
        if (section.EntrySize != (ulong)entrySize || section.Size % (ulong)entrySize != 0)
        {
            error = Bad(section, "has an entry size or size that does not fit", $"{section.Size} bytes in entries of {section.EntrySize}",
                $"entries of {entrySize}");
            return false;
        }

        if (section.Link >= (uint)image.Sections.Count || image.Sections[(int)section.Link].Type != ElfSectionType.StringTable)
        {
            error = Bad(section, "does not name its string table", $"section {section.Link}", "the index of a string table");
            return false;
        }

        ElfSection strings = image.Sections[(int)section.Link];
        if (!ElfStringTable.TryCreate(image.GetBytes(strings), strings.FileOffset, "symbols", out ElfStringTable names, out error))
        {
            return false;
        }

        ElfSection? extended = image.Sections.FirstOrDefault(
            s => s.Type == ElfSectionType.ExtendedSectionIndices && s.Link == (uint)section.Index);
        var read = new ElfSymbolTable(
            image.GetBytes(section), extended is null ? default : image.GetBytes(extended), names, image.Bitness == 64);
        for (int i = 0; i < read.Count; i++)
        {
            uint nameOffset = read[i].NameOffset;
            if (nameOffset != 0 && nameOffset >= (uint)names.Length)
            {
                error = Bad(section, $"has a name outside its string table (symbol {i})", FileRange.Hex(nameOffset),
                    $"less than {FileRange.Hex((ulong)names.Length)}");
                return false;
            }
        }

        table = read;
        return true;
    }

    private static PatchDiagnostic Bad(ElfSection section, string what, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ElfBadSymbolTable, $"The symbol table {section.Name} {what}") with
        {
            FileOffset = section.FileOffset,
            Found = found,
            Expected = expected,
            Help = "The symbol table is damaged; strip it (strip --strip-all) or take the original again",
        };

    private int SectionIndexOf(int index, ushort value)
    {
        if (value == SectionIndexExtended && _extendedIndices.Length / 4 > index)
        {
            uint extended = BinaryPrimitives.ReadUInt32LittleEndian(_extendedIndices.Span[(index * 4)..]);
            return extended <= int.MaxValue ? (int)extended : -1;
        }

        return value >= SectionIndexReserved ? -1 : value;
    }
}
