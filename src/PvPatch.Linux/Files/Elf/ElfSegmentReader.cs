using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>Reads and checks the program header table.</summary>
internal static class ElfSegmentReader
{
    // PN_XNUM: the real count stands in sh_info of section 0 (System V ABI, "Program Header").
    private const ushort ExtendedCount = 0xffff;

    public static bool TryRead(
        ReadOnlySpan<byte> file, ElfHeader header, IReadOnlyList<ElfSection> sections, [NotNullWhen(true)] out ElfSegment[]? segments,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        segments = [];
        error = null;
        ulong count = header.SegmentCount == ExtendedCount && sections.Count > 0 ? sections[0].Info : header.SegmentCount;
        if (header.SegmentTableOffset == 0 || count == 0)
        {
            return true;
        }

        int entrySize = header.ExpectedSegmentEntrySize;
        if (header.SegmentEntrySize != entrySize)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfBadHeaderField, "The size of a program header (e_phentsize) is wrong") with
            {
                FileOffset = header.Is64 ? 54 : 42,
                Found = $"{header.SegmentEntrySize}",
                Expected = $"{entrySize}",
                Help = "The ELF header is damaged; take the original again",
            };
            return false;
        }

        if (!FileRange.Fits(header.SegmentTableOffset, count * (ulong)entrySize, file.Length))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfTableOutsideFile, $"The program header table ({count} headers) lies outside the file") with
            {
                FileOffset = header.Is64 ? 32 : 28,
                Found = $"table at {FileRange.Hex(header.SegmentTableOffset)}",
                Expected = $"a table that ends within {FileRange.Hex((ulong)file.Length)} bytes",
                Help = "The file is cut short or its header is damaged; copy or download it again",
            };
            return false;
        }

        var read = new ElfSegment[(int)count];
        for (int i = 0; i < read.Length; i++)
        {
            int at = (int)header.SegmentTableOffset + (i * entrySize);
            var fields = new ElfFields(file.Slice(at, entrySize), header.Is64);
            if (!TryDecode(i, fields, at, header.Bitness, file.Length, out read[i], out error))
            {
                return false;
            }
        }

        segments = read;
        return true;
    }

    private static bool TryDecode(int index, ElfFields fields, int at, int bitness, int fileLength, out ElfSegment segment,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ulong offset = fields.Native(4, 8);
        ulong fileSize = fields.Native(16, 32);
        ulong memorySize = fields.Native(20, 40);
        ulong address = fields.Native(8, 16);
        segment = default;
        error = null;
        if (!FileRange.Fits(offset, fileSize, fileLength))
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.ElfSegmentOutsideFile, $"Segment {index} lies outside the file") with
            {
                FileOffset = at,
                Found = FileRange.Describe(offset, fileSize),
                Expected = $"a range within {FileRange.Hex((ulong)fileLength)} bytes",
                Help = "The file is cut short or its program headers are damaged; copy or download it again",
            };
            return false;
        }

        var type = (ElfSegmentType)fields.Word(0, 0);
        if (type == ElfSegmentType.Load && fileSize > memorySize)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfBadHeaderField, $"Segment {index} has more bytes in the file than in memory") with
            {
                FileOffset = at,
                Found = $"{FileRange.Hex(fileSize)} bytes in the file",
                Expected = $"at most {FileRange.Hex(memorySize)}",
                Help = "The program headers are damaged; take the original again",
            };
            return false;
        }

        if (type == ElfSegmentType.Load && !FileRange.FitsAddressSpace(address, memorySize, bitness))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfAddressOverflow, $"Segment {index} goes beyond the end of the {bitness}-bit address space") with
            {
                FileOffset = at,
                Address = address,
                Found = $"{FileRange.Hex(memorySize)} bytes",
                Expected = "a size that ends within the address space",
                Help = "The program headers are damaged; take the original again",
            };
            return false;
        }

        segment = new ElfSegment
        {
            Type = type,
            Flags = (ElfSegmentAccess)fields.Word(24, 4),
            FileOffset = (long)offset,
            FileSize = (long)fileSize,
            Address = address,
            PhysicalAddress = fields.Native(12, 24),
            MemorySize = memorySize,
            Alignment = fields.Native(28, 48),
        };
        return true;
    }
}
