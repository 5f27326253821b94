using System.Diagnostics.CodeAnalysis;
using SystemEncoding = System.Text.Encoding;

namespace PvPatch.Linux.Files;

/// <summary>Reads and checks the section header table, extended numbering included.</summary>
internal static class ElfSectionReader
{
    // SHN_XINDEX: the real index stands in sh_link of section 0 (System V ABI, "Sections").
    private const ushort ExtendedIndex = 0xffff;

    /// <summary>Reads all section headers; the list is empty where the file has none.</summary>
    public static bool TryRead(
        Memory<byte> file, ElfHeader header, List<PatchDiagnostic> warnings, [NotNullWhen(true)] out ElfSection[]? sections,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        sections = [];
        if (!TryLocate(file.Span, header, out int tableOffset, out int count, out uint namesIndex, out error))
        {
            return false;
        }

        if (count == 0)
        {
            warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.ElfNoSectionHeaders, "The ELF file has no section headers") with
            {
                FileOffset = 0,
                Expected = "the sections .altinstructions or .parainstructions",
                Help = "Site tables are found by section name; use an image whose section headers were not stripped",
            });
            return true;
        }

        if (!TryReadNames(file, header, tableOffset, count, namesIndex, warnings, out ElfStringTable names, out error))
        {
            return false;
        }

        var read = new ElfSection[count];
        long nameBytes = 0;
        for (int i = 0; i < count; i++)
        {
            int at = tableOffset + (i * header.ExpectedSectionEntrySize);
            var fields = new ElfFields(file.Span.Slice(at, header.ExpectedSectionEntrySize), header.Is64);
            uint nameOffset = names.Length == 0 ? 0 : fields.Word(0, 0);

            // Names may share bytes, but together they are never longer than the file of an honest linker: else a few
            // megabytes of headers that all point into one long name would ask for gigabytes.
            if (!names.TryGetName(nameOffset, out ReadOnlySpan<byte> name) || (nameBytes += name.Length) > file.Length)
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.ElfBadStringTable, $"The name of section {i} lies outside the section names or is too long") with
                {
                    FileOffset = at,
                    Found = $"name offset {FileRange.Hex(nameOffset)}",
                    Expected = $"less than {FileRange.Hex((ulong)names.Length)}",
                    Help = "The file is damaged; take the original again",
                };
                return false;
            }

            read[i] = Decode(i, SystemEncoding.UTF8.GetString(name), fields);
            if (!TryCheck(read[i], fields, at, header.Bitness, file.Length, out error))
            {
                return false;
            }
        }

        sections = read;
        error = null;
        return true;
    }

    private static bool TryLocate(ReadOnlySpan<byte> file, ElfHeader header, out int tableOffset, out int count, out uint namesIndex,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        tableOffset = 0;
        count = 0;
        namesIndex = header.NamesIndex;
        error = null;
        if (header.SectionTableOffset == 0)
        {
            return true;
        }

        int entrySize = header.ExpectedSectionEntrySize;
        if (header.SectionEntrySize != entrySize)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfBadHeaderField, "The size of a section header (e_shentsize) is wrong") with
            {
                FileOffset = header.Is64 ? 58 : 46,
                Found = $"{header.SectionEntrySize}",
                Expected = $"{entrySize}",
                Help = "The ELF header is damaged; take the original again",
            };
            return false;
        }

        ulong realCount = header.SectionCount;
        if (FileRange.Fits(header.SectionTableOffset, (ulong)entrySize, file.Length))
        {
            var first = new ElfFields(file.Slice((int)header.SectionTableOffset, entrySize), header.Is64);
            realCount = realCount == 0 ? first.Native(20, 32) : realCount;
            namesIndex = header.NamesIndex == ExtendedIndex ? first.Word(24, 40) : header.NamesIndex;
        }

        if (realCount > (ulong)file.Length
            || !FileRange.Fits(header.SectionTableOffset, Math.Max(realCount, 1) * (ulong)entrySize, file.Length))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfTableOutsideFile, $"The section header table ({realCount} headers) lies outside the file") with
            {
                FileOffset = header.Is64 ? 40 : 32,
                Found = $"table at {FileRange.Hex(header.SectionTableOffset)}",
                Expected = $"a table that ends within {FileRange.Hex((ulong)file.Length)} bytes",
                Help = "The file is cut short or its header is damaged; copy or download it again",
            };
            return false;
        }

        tableOffset = (int)header.SectionTableOffset;
        count = (int)realCount;
        return true;
    }

    private static bool TryReadNames(
        Memory<byte> file, ElfHeader header, int tableOffset, int count, uint namesIndex, List<PatchDiagnostic> warnings,
        out ElfStringTable names, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        names = default;
        error = null;
        if (namesIndex == 0)
        {
            warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.ElfNoSectionHeaders, "The ELF file has no section names") with
            {
                FileOffset = header.Is64 ? 62 : 50,
                Help = "Site tables are found by section name; use an image whose section names were not stripped",
            });
            return true;
        }

        if (namesIndex >= (uint)count)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfBadStringTable, "The section that holds the section names (e_shstrndx) does not exist") with
            {
                FileOffset = header.Is64 ? 62 : 50,
                Found = $"section {namesIndex}",
                Expected = $"less than {count}",
                Help = "The ELF header is damaged; take the original again",
            };
            return false;
        }

        int at = tableOffset + ((int)namesIndex * header.ExpectedSectionEntrySize);
        var fields = new ElfFields(file.Span.Slice(at, header.ExpectedSectionEntrySize), header.Is64);
        ulong offset = fields.Native(16, 24);
        ulong size = fields.Native(20, 32);
        if (fields.Word(4, 4) != (uint)ElfSectionType.StringTable || !FileRange.Fits(offset, size, file.Length))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfBadStringTable, "The section names are not a string table inside the file") with
            {
                FileOffset = at,
                Found = $"type {fields.Word(4, 4)} at {FileRange.Describe(offset, size)}",
                Expected = $"type 3 within {FileRange.Hex((ulong)file.Length)} bytes",
                Help = "The file is cut short or damaged; copy or download it again",
            };
            return false;
        }

        return ElfStringTable.TryCreate(file.Slice((int)offset, (int)size), (long)offset, "section names", out names, out error);
    }

    private static ElfSection Decode(int index, string name, ElfFields fields) => new(index, name)
    {
        Type = (ElfSectionType)fields.Word(4, 4),
        Flags = (ElfSectionAttributes)fields.Native(8, 8),
        Address = fields.Native(12, 16),
        FileOffset = (long)Math.Min(fields.Native(16, 24), long.MaxValue),
        Size = fields.Native(20, 32),
        Link = fields.Word(24, 40),
        Info = fields.Word(28, 44),
        Alignment = fields.Native(32, 48),
        EntrySize = fields.Native(36, 56),
    };

    private static bool TryCheck(
        ElfSection section, ElfFields fields, int at, int bitness, int fileLength, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        ulong offset = fields.Native(16, 24);
        if (section.HasFileContent && !FileRange.Fits(offset, section.Size, fileLength))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfSectionOutsideFile, $"Section {section.Index} ({section.Name}) lies outside the file") with
            {
                FileOffset = at,
                Found = FileRange.Describe(offset, section.Size),
                Expected = $"a range within {FileRange.Hex((ulong)fileLength)} bytes",
                Help = "The file is cut short or its section headers are damaged; copy or download it again",
            };
            return false;
        }

        if (section.IsAllocated && !FileRange.FitsAddressSpace(section.Address.Value, section.Size, bitness))
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.ElfAddressOverflow,
                $"Section {section.Index} ({section.Name}) goes beyond the end of the {bitness}-bit address space") with
            {
                FileOffset = at,
                Address = section.Address,
                Found = $"{FileRange.Hex(section.Size)} bytes",
                Expected = "a size that ends within the address space",
                Help = "The section headers are damaged; take the original again",
            };
            return false;
        }

        return true;
    }
}
