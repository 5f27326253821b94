using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Modules;

/// <summary>
/// Does the relocations of a module that was placed (psABI of x86-64 and of i386, "Relocation Types"). Those that cannot be done
/// are left out and told: a module refers to much that no site needs, such as per-processor data and other modules.
/// </summary>
internal sealed class ModuleRelocator
{
    private readonly ElfImage _module;
    private readonly ElfImage _placed;
    private readonly ModuleSymbols _symbols;
    private readonly bool _is64;
    private readonly List<ModuleReference> _unresolved = [];

    private ModuleRelocator(ElfImage module, ElfImage placed, ModuleSymbols symbols)
    {
        _module = module;
        _placed = placed;
        _symbols = symbols;
        _is64 = module.Bitness == 64;
    }

    private int EntrySize => _is64 ? 24 : 8; // Elf64_Rela, Elf32_Rel

    /// <summary>Writes the values into the placed copy.</summary>
    /// <param name="module">The module as it is in its file, from which symbols and relocations are read.</param>
    /// <param name="placed">The copy with addresses.</param>
    /// <param name="symbols">Values of its symbols.</param>
    /// <param name="result">Relocations that could not be applied.</param>
    /// <param name="error">PV6142: the relocations are damaged.</param>
    public static bool TryApply(
        ElfImage module, ElfImage placed, ModuleSymbols symbols, [NotNullWhen(true)] out ModuleRelocations? result,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        result = null;
        error = null;
        var relocator = new ModuleRelocator(module, placed, symbols);
        long total = 0;
        foreach (ElfSection section in module.Sections)
        {
            // As in the kernel: relocations of what is not loaded are of no interest.
            if (section.Type is not (ElfSectionType.RelocationsWithAddend or ElfSectionType.Relocations)
                || section.Info >= (uint)module.Sections.Count || !placed.Sections[(int)section.Info].IsAllocated)
            {
                continue;
            }

            // Honest tables share no bytes. Without this bound a small file of many headers over one table would take gigabytes.
            total += (long)section.Size;
            if (total > module.File.Length)
            {
                error = Bad(section, "the tables of relocations share bytes of the file", FileRange.Hex((ulong)total),
                    $"at most {module.File.Length} bytes");
                return false;
            }

            if (!relocator.TryCheckTable(section, out error) || !relocator.TryApply(section, placed.Sections[(int)section.Info], out error))
            {
                return false;
            }
        }

        result = new ModuleRelocations(relocator._unresolved, symbols);
        return true;
    }

    private bool TryCheckTable(ElfSection section, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ElfSectionType expected = _is64 ? ElfSectionType.RelocationsWithAddend : ElfSectionType.Relocations;
        bool right = section.Type == expected && section.EntrySize == (ulong)EntrySize && section.Size % (ulong)EntrySize == 0;
        if (!right)
        {
            error = Bad(section, $"the relocations {section.Name} are not of the form of {_module.Bitness}-bit modules",
                $"type {(int)section.Type}, {section.Size} bytes in entries of {section.EntrySize}",
                $"type {(int)expected} with entries of {EntrySize} bytes");
            return false;
        }

        ElfSection? symbols = _module.Sections.FirstOrDefault(static s => s.Type == ElfSectionType.SymbolTable);
        error = section.Link == (uint?)symbols?.Index
            ? null : Bad(section, $"the relocations {section.Name} do not name the module's symbol table", $"section {section.Link}",
            $"section {symbols?.Index}");
        return error is null;
    }

    private bool TryApply(ElfSection section, ElfSection target, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        ReadOnlySpan<byte> table = _module.GetBytes(section).Span;
        Span<byte> content = _placed.GetBytes(target).Span;
        for (int at = 0; at < table.Length; at += EntrySize)
        {
            ReadOnlySpan<byte> entry = table.Slice(at, EntrySize);
            ulong offset = _is64 ? BinaryPrimitives.ReadUInt64LittleEndian(entry) : BinaryPrimitives.ReadUInt32LittleEndian(entry);
            uint symbol = _is64
                ? BinaryPrimitives.ReadUInt32LittleEndian(entry[12..]) : BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]) >> 8;
            uint type = _is64 ? BinaryPrimitives.ReadUInt32LittleEndian(entry[8..]) : entry[4];
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
            long addend = _is64 ? BinaryPrimitives.ReadInt64LittleEndian(entry[16..]) : field.IsKnown
                ? BinaryPrimitives.ReadInt32LittleEndian(place) : 0;
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

        void Leave(UnresolvedReason reason) => _unresolved.Add(new ModuleReference(address.Value, symbol, (byte)field.Width, reason));
    }

    private static PatchDiagnostic Bad(ElfSection section, string message, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ModuleBadRelocations, message) with
        {
            FileOffset = section.FileOffset,
            Found = found,
            Expected = expected,
            Help = "The module is damaged; take the original again.",
        };
}
