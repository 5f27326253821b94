using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>What the symbols of a relocatable file stand for once it is placed.</summary>
internal interface IPlacedSymbols
{
    /// <summary>The number of symbols in its table.</summary>
    public int Count { get; }

    /// <summary>The value of a symbol, where it is known.</summary>
    public bool TryGetValue(int index, out ulong value);
}

/// <summary>
/// Does the relocations of a file that was placed (psABI of x86-64 and of i386, "Relocation Types"). Those that cannot be done are left
/// out and told: a module or object refers to much that no site needs, such as per-processor data and other files.
/// </summary>
internal sealed class ElfRelocator
{
    private readonly ElfImage _file;
    private readonly ElfImage _placed;
    private readonly IPlacedSymbols _symbols;
    private readonly bool _is64;
    private readonly ElfSection? _symbolTable;
    private readonly List<UnresolvedRelocation> _unresolved = [];

    private ElfRelocator(ElfImage file, ElfImage placed, IPlacedSymbols symbols)
    {
        _file = file;
        _placed = placed;
        _symbols = symbols;
        _is64 = file.Bitness == 64;
        _symbolTable = file.Sections.FirstOrDefault(static s => s.Type == ElfSectionType.SymbolTable);
    }

    private int EntrySize => ElfRelocation.Size(_is64);

    /// <summary>Writes the values into the placed copy.</summary>
    /// <param name="file">The file as it is, from which symbols and relocations are read.</param>
    /// <param name="placed">The copy with addresses.</param>
    /// <param name="symbols">What its symbols stand for.</param>
    /// <param name="unresolved">What could not be done.</param>
    /// <param name="error">PV6142: the relocations are damaged.</param>
    public static bool TryApply(
        ElfImage file, ElfImage placed, IPlacedSymbols symbols, [NotNullWhen(true)] out List<UnresolvedRelocation>? unresolved,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        unresolved = null;
        error = null;
        var relocator = new ElfRelocator(file, placed, symbols);
        long total = 0;
        foreach (ElfSection section in file.Sections)
        {
            // As in the kernel: relocations of what is not loaded are of no interest.
            if (section.Type is not (ElfSectionType.RelocationsWithAddend or ElfSectionType.Relocations)
                || section.Info >= (uint)file.Sections.Count || !placed.Sections[(int)section.Info].IsAllocated)
            {
                continue;
            }

            // Honest tables share no bytes. Without this bound a small file of many headers over one table would take gigabytes.
            total += (long)section.Size;
            if (total > file.File.Length)
            {
                error = Bad(section, "the tables of relocations share bytes of the file", FileRange.Hex((ulong)total),
                    $"at most {file.File.Length} bytes");
                return false;
            }

            if (!relocator.TryCheckTable(section, out error) || !relocator.TryApply(section, placed.Sections[(int)section.Info], out error))
            {
                return false;
            }
        }

        unresolved = relocator._unresolved;
        return true;
    }

    private bool TryCheckTable(ElfSection section, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ElfSectionType expected = _is64 ? ElfSectionType.RelocationsWithAddend : ElfSectionType.Relocations;
        bool right = section.Type == expected && section.EntrySize == (ulong)EntrySize && section.Size % (ulong)EntrySize == 0;
        if (!right)
        {
            error = Bad(section, $"the relocations {section.Name} are not of the form of {_file.Bitness}-bit files",
                $"type {(int)section.Type}, {section.Size} bytes in entries of {section.EntrySize}",
                $"type {(int)expected} with entries of {EntrySize} bytes");
            return false;
        }

        error = section.Link == (uint?)_symbolTable?.Index
            ? null : Bad(section, $"the relocations {section.Name} do not name the file's symbol table", $"section {section.Link}",
            $"section {_symbolTable?.Index}");
        return error is null;
    }

    private bool TryApply(ElfSection section, ElfSection target, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        ReadOnlySpan<byte> table = _file.GetBytes(section).Span;
        Span<byte> content = _placed.GetBytes(target).Span;
        for (int at = 0; at < table.Length; at += EntrySize)
        {
            ReadOnlySpan<byte> entry = table.Slice(at, EntrySize);
            (ulong offset, uint type, uint symbol, long addend) = ElfRelocation.Read(entry, _is64);
            if (type == RelocationField.None)
            {
                continue;
            }

            RelocationField field = RelocationField.Of(type, _is64);
            if (symbol >= (uint)_symbols.Count || !FileRange.Fits(offset, (ulong)field.Width, content.Length))
            {
                error = Bad(section, $"a relocation of {target.Name} has a place or symbol that does not exist",
                    $"offset {FileRange.Hex(offset)}, symbol {symbol}",
                    $"{field.Width} bytes within {FileRange.Hex((ulong)content.Length)}, one of {_symbols.Count} symbols") with
                {
                    FileOffset = section.FileOffset + at,
                };
                return false;
            }

            Span<byte> place = content.Slice((int)offset, field.Width);
            if (!_is64 && field.IsKnown)
            {
                addend = BinaryPrimitives.ReadInt32LittleEndian(place);
            }

            Apply(field, place, target.Address + (long)offset, (int)symbol, addend);
        }

        return true;
    }

    private void Apply(RelocationField field, Span<byte> place, VirtualAddress address, int symbol, long addend)
    {
        if (!field.IsKnown || !_symbols.TryGetValue(symbol, out ulong value))
        {
            Leave(field.IsKnown ? UnresolvedReason.UnknownSymbol : UnresolvedReason.UnknownType);
            return;
        }

        value = unchecked(value + (ulong)addend - (field.IsRelative ? address.Value : 0));
        if (field.Width == 8)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(place, value);
        }
        else if (!_is64 || (field.IsSigned ? (long)value == (int)value : value <= uint.MaxValue))
        {
            BinaryPrimitives.WriteUInt32LittleEndian(place, unchecked((uint)value)); // 32-bit addresses and distances wrap
        }
        else
        {
            Leave(UnresolvedReason.OutOfReach);
        }

        void Leave(UnresolvedReason reason) => _unresolved.Add(new UnresolvedRelocation(address.Value, symbol, (byte)field.Width, reason));
    }

    private static PatchDiagnostic Bad(ElfSection section, string message, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ModuleBadRelocations, message) with
        {
            FileOffset = section.FileOffset,
            Found = found,
            Expected = expected,
            Help = "The file is damaged; take the original again.",
        };
}
