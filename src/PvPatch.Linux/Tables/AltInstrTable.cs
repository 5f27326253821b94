using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Tables;

/// <summary>The records of <c>.altinstructions</c>, in the order of the file, which is the order in which a kernel applies them.</summary>
internal sealed class AltInstrTable
{
    /// <summary>The name of the section that holds the records.</summary>
    public const string SectionName = ".altinstructions";

    /// <summary>The name of the section that holds the replacements.</summary>
    public const string ReplacementSectionName = ".altinstr_replacement";

    private readonly AltInstr[] _records;

    internal AltInstrTable(AltInstrFormat format, AltInstr[] records)
    {
        Format = format;
        _records = records;
    }

    /// <summary>The layout of the records in the file.</summary>
    public AltInstrFormat Format { get; }

    /// <summary>The number of records.</summary>
    public int Count => _records.Length;

    /// <summary>The records.</summary>
    public ReadOnlySpan<AltInstr> Records => _records;

    /// <summary>One record.</summary>
    /// <param name="index">From 0 to <see cref="Count"/> - 1.</param>
    public AltInstr this[int index] => _records[index];

    /// <summary>Reads a table of a known format.</summary>
    /// <param name="section">The bytes of the table.</param>
    /// <param name="sectionAddress">The address its first byte has when the kernel runs; relative records count from it.</param>
    /// <param name="format">The layout of the records.</param>
    /// <param name="bitness">32 or 64: the width of the address space.</param>
    /// <param name="fileOffset">Where the table starts in its file, in bytes, for messages.</param>
    /// <param name="table">The records.</param>
    /// <param name="error">
    /// What is wrong: code PV6070 for a size that does not fit, PV6071 for a record that leaves the address space.
    /// </param>
    /// <returns>Whether all records were read.</returns>
    public static bool TryRead(
        ReadOnlySpan<byte> section,
        VirtualAddress sectionAddress,
        AltInstrFormat format,
        int bitness,
        long fileOffset,
        [NotNullWhen(true)] out AltInstrTable? table,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(format);
        table = null;
        if (!format.FitsSize(section.Length))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.AltSizeNotMultiple, "The size of the alternatives table is not a multiple of its record size") with
            {
                FileOffset = fileOffset,
                Address = sectionAddress,
                Found = $"{section.Length} bytes",
                Expected = $"records of {format.Stride} bytes ({format.Name})",
                Help = "The kernel has another record format, or the section is cut short",
            };
            return false;
        }

        var records = new AltInstr[format.CountOf(section.Length)];
        for (int i = 0; i < records.Length; i++)
        {
            int at = i * format.Stride;
            if (!format.TryDecode(section.Slice(at, format.DataSize), sectionAddress + at, bitness, out records[i]))
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.AltAddressOverflow, $"Alternative {i} leaves the {bitness}-bit address space") with
                {
                    FileOffset = fileOffset + at,
                    Address = sectionAddress + at,
                    Found = FileRange.FirstBytes(section.Slice(at, format.DataSize)),
                    Expected = $"a record of the format {format}",
                    Help = "The kernel has another record format, or the section is damaged",
                };
                return false;
            }
        }

        table = new AltInstrTable(format, records);
        error = null;
        return true;
    }

    /// <summary>Reads the table of a kernel and finds out its format.</summary>
    /// <param name="image">The kernel.</param>
    /// <param name="table">The records.</param>
    /// <param name="error">
    /// What is wrong: code PV6019 or PV6020 where there is no table, PV6072 or PV6073 where its format is not clear.
    /// </param>
    /// <returns>Whether there is a table, and one format fits it.</returns>
    public static bool TryRead(
        ElfImage image, [NotNullWhen(true)] out AltInstrTable? table, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(image);
        table = null;
        if (!image.TryGetSection(SectionName, out ElfSection? section, out error))
        {
            return false;
        }

        _ = image.TryGetSection(ReplacementSectionName, out ElfSection? replacements);
        return AltInstrDetector.TryDetect(
            image.GetBytes(section).Span,
            section.Address,
            image.Bitness,
            section.FileOffset,
            (address, length) =>
                image.TryGetSectionAt(address, out ElfSection? code) && code.IsExecutable && code.Contains(address, length),
            (address, length) => replacements is null || replacements.Contains(address, length),
            out table,
            out error);
    }
}
