using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PvPatch.Linux.Tables;

/// <summary>Whether a range of addresses is one that a record of the alternatives table may name.</summary>
/// <param name="address">The first address.</param>
/// <param name="length">The number of bytes; 0 for a replacement by nothing.</param>
/// <returns>Whether it may.</returns>
internal delegate bool AltAddressPredicate(VirtualAddress address, int length);

/// <summary>
/// Detects the format of an alternatives table: by its size, and by whether every record makes sense. The kernel's version does not
/// determine it: stable and vendor kernels changed the format within a release.
/// </summary>
internal static class AltInstrDetector
{
    /// <summary>Reads a table in every format that fits its size, and takes the one in which all records make sense.</summary>
    /// <param name="section">The bytes of the table.</param>
    /// <param name="sectionAddress">The address its first byte has when the kernel runs.</param>
    /// <param name="bitness">32 or 64: what the kernel is built for.</param>
    /// <param name="fileOffset">Where the table starts in its file, in bytes, for messages.</param>
    /// <param name="isCode">Whether a range may hold original instructions: it lies in a section of code.</param>
    /// <param name="isReplacement">Whether a range may hold a replacement: it lies in <c>.altinstr_replacement</c>.</param>
    /// <param name="table">The records.</param>
    /// <param name="error">What is wrong: code PV6072 where no format fits, PV6073 where several fit and give different records.</param>
    /// <returns>Whether one format fits. Formats that give the very same records count as one: the newest.</returns>
    public static bool TryDetect(
        ReadOnlySpan<byte> section,
        VirtualAddress sectionAddress,
        int bitness,
        long fileOffset,
        AltAddressPredicate isCode,
        AltAddressPredicate isReplacement,
        [NotNullWhen(true)] out AltInstrTable? table,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(isCode);
        ArgumentNullException.ThrowIfNull(isReplacement);
        table = null;
        var rejected = new List<string>();
        foreach (AltInstrFormat format in AltInstrFormat.Candidates(section.Length, bitness))
        {
            if (!AltInstrTable.TryRead(
                section, sectionAddress, format, bitness, fileOffset, out AltInstrTable? read, out PatchDiagnostic? unreadable))
            {
                rejected.Add($"{format}: {unreadable.Message}");
                continue;
            }

            int strange = FirstStrange(read, isCode, isReplacement);
            if (strange >= 0)
            {
                rejected.Add(string.Create(CultureInfo.InvariantCulture, $"{format}: record {strange} makes no sense"));
                continue;
            }

            if (table is not null && !table.Records.SequenceEqual(read.Records))
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.AltFormatAmbiguous, "More than one record format fits the alternatives table") with
                {
                    FileOffset = fileOffset,
                    Address = sectionAddress,
                    Found = $"{table.Format} and {format}",
                    Expected = "one format",
                    Help =
                        $"Read the table with {nameof(AltInstrTable)}.{nameof(AltInstrTable.TryRead)} "
                        + "and the format of this kernel version",
                };
                table = null;
                return false;
            }

            table = read;
        }

        error = table is not null ? null
            : PatchDiagnostic.Error(KernelDiagnosticCodes.AltFormatUnknown, "No known record format fits the alternatives table") with
            {
                FileOffset = fileOffset,
                Address = sectionAddress,
                Found = string.Create(
                CultureInfo.InvariantCulture, $"{section.Length} bytes{(rejected.Count == 0 ? "" : "; ")}{string.Join("; ", rejected)}"),
                Expected = "records of 12, 13, 14 or 24 bytes that name code and replacements",
                Help = "The section is damaged, or the kernel is newer than this reader",
            };
        return table is not null;
    }

    private static int FirstStrange(AltInstrTable table, AltAddressPredicate isCode, AltAddressPredicate isReplacement)
    {
        for (int i = 0; i < table.Count; i++)
        {
            AltInstr record = table[i];
            if (!AltInstrFormat.IsSane(record)
                || !isCode(record.Address, record.Length)
                || !isReplacement(record.ReplacementAddress, record.ReplacementLength))
            {
                return i;
            }
        }

        return -1;
    }
}
