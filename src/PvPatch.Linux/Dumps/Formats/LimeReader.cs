using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>Reads LiME dumps (format=lime), version 1: ranges of physical memory, each behind a header.</summary>
/// <remarks>
/// <code>
///  0  magic      45 4d 69 4c: 0x4c694d45
///  4  version    1; AVML's compressed dumps have 2
///  8  first      physical address of the first byte
/// 16  last       physical address of the last byte
/// 24  reserved   8 bytes
/// 32  the bytes, last - first + 1 of them, then the next header
/// </code>
/// format=raw and format=padded have no headers: raw memory.
/// </remarks>
internal static class LimeReader
{
    private const int HeaderSize = 32;

    // One for each System RAM of /proc/iomem: some tens.
    private const int MaxRanges = 1 << 20;

    public static bool HasMagic(ReadOnlySpan<byte> start) => start.StartsWith("EMiL"u8);

    public static bool TryRead(MemorySource source, List<PatchDiagnostic> warnings, [NotNullWhen(true)] out DumpContent? content,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        content = null;
        var ranges = new List<MemorySegment>();
        if (ReadRanges(source, ranges, warnings) is PatchDiagnostic bad)
        {
            if (bad.Severity == DiagnosticSeverity.Error)
            {
                error = bad;
                return false;
            }

            warnings.Add(bad);
        }

        var physical = MemorySpace.Create(source, ranges);
        if (physical.IsEmpty)
        {
            error = DumpReader.Empty("the LiME dump holds no memory");
            return false;
        }

        if (physical.Overlaps > 0)
        {
            warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreBadSegments, "ranges of the LiME dump share addresses") with
            {
                Found = string.Create(CultureInfo.InvariantCulture, $"{physical.Overlaps} that overlap"),
                Help = "Of two ranges with one address the one that starts first counts; the dump is damaged, or made up.",
            });
        }

        error = null;
        content = new DumpContent(MemoryFileKind.Lime, source) { Virtual = MemorySpace.OfSorted(source, []), Physical = physical };
        return true;
    }

    private static PatchDiagnostic? ReadRanges(MemorySource source, List<MemorySegment> ranges, List<PatchDiagnostic> warnings)
    {
        Span<byte> header = stackalloc byte[HeaderSize];
        long at = 0;
        while (at < source.Length)
        {
            if (source.Length - at < HeaderSize || !source.TryRead(at, header))
            {
                warnings.Add(Cut(at, $"a header of {source.Length - at} bytes"));
                return null;
            }

            uint version = BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);
            ulong first = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
            ulong last = BinaryPrimitives.ReadUInt64LittleEndian(header[16..]);
            if (HasMagic(header) && version == 2)
            {
                return DumpMagic.NotRead(header, "the file is an AVML dump with compressed pages (LiME version 2), which is not read here",
                    "Make it a LiME dump: avml-convert FILE OTHER; or take it with avml without --compress.");
            }

            if (!HasMagic(header) || version != 1 || last < first || ranges.Count == MaxRanges)
            {
                // Behind ranges that were read it is a warning: they are of use.
                var severity = ranges.Count == 0 ? DiagnosticSeverity.Error : DiagnosticSeverity.Warning;
                return Bad(severity, at, HasMagic(header)
                    ? $"version {version}, addresses {FileRange.Hex(first)} to {FileRange.Hex(last)}" : FileRange.FirstBytes(header));
            }

            at += HeaderSize;
            long room = source.Length - at;
            bool isWhole = last - first < (ulong)room;
            long length = isWhole ? (long)(last - first) + 1 : room;
            ranges.Add(new MemorySegment(first, at, length));
            if (!isWhole)
            {
                warnings.Add(Cut(at, $"{length} bytes of {FileRange.Hex(first)} to {FileRange.Hex(last)}"));
                return null;
            }

            at += length;
        }

        return null;
    }

    private static PatchDiagnostic Bad(DiagnosticSeverity severity, long at, string found) =>
        new(KernelDiagnosticCodes.LimeBadRange, severity, "a range of the LiME dump has a header that is none")
        {
            FileOffset = at,
            Found = found,
            Expected = "45 4d 69 4c, version 1, a first and a last address",
            Help = "What stands from here on is not read. The dump is damaged, or written by another program; take it again.",
        };

    private static PatchDiagnostic Cut(long at, string found) =>
        PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreTruncated, "the LiME dump ends before the memory it announces") with
        {
            FileOffset = at,
            Found = found,
            Expected = "whole ranges",
            Help = "What is missing counts as unreadable; take the dump again for the rest.",
        };
}
