using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Numerics;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// Reads kdump-compressed dumps: makedumpfile's and diskdump's own format, and QEMU's dump-guest-memory with -z, -l or -s.
/// </summary>
/// <remarks>
/// A page is found by its rank: the number of pages in the dump before it is the number of its descriptor. Runs of pages are segments
/// whose place in <see cref="KdumpPages"/> is that rank, so no more than the runs is kept, whatever the size of the memory.
/// </remarks>
internal static class KdumpReader
{
    // Status of the dump (diskdump_mod.h of makedumpfile): compressions as in a page's flags, and this one.
    private const uint Incomplete = 0x8;

    // A fragmented terabyte; 384 MiB of segments. The bits of as many runs are in the file.
    private const long MaxRuns = 16 << 20;
    private const int ChunkSize = 64 << 10;

    public static bool TryRead(MemorySource source, List<PatchDiagnostic> warnings, [NotNullWhen(true)] out DumpContent? content,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        content = null;
        if (!KdumpHeader.TryRead(source, out KdumpHeader? header, out error))
        {
            return false;
        }

        if ((header.Status & PageCompression.Lzo) != 0)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.KdumpCompressionUnknown, "the dump is compressed with lzo, which is not "
                + "read here") with
            {
                Found = $"status {FileRange.Hex(header.Status)}",
                Expected = "zlib, snappy or zstd",
                Help = "Compress it anew: makedumpfile -c FILE OTHER; or take it with dump-guest-memory -z in place of -l.",
            };
            return false;
        }

        if (!TryReadRuns(source, header, out List<MemorySegment> runs, out long pages, out error))
        {
            return false;
        }

        long descriptors = Math.Max(0, Math.Min(pages, (source.Length - header.DescriptorOffset) / KdumpPages.DescriptorSize));
        var file = new KdumpPages(source, header.DescriptorOffset, descriptors);
        WarnIfCut(source, header, file, pages, descriptors, warnings);
        MemorySegment[] segments = descriptors == pages ? [.. runs] : Within(runs, descriptors * KdumpHeader.BlockSize);
        if (segments.Length == 0)
        {
            error = DumpReader.Empty("the compressed dump holds no memory") with
            {
                Found = string.Create(CultureInfo.InvariantCulture, $"{pages} pages in its bitmap, {descriptors} with a descriptor"),
            };
            return false;
        }

        content = new DumpContent(MemoryFileKind.Kdump, file)
        {
            Virtual = MemorySpace.OfSorted(file, []),
            Physical = MemorySpace.OfSorted(file, segments),
            Bitness = header.Bitness,
            Notes = ReadNotes(source, header, warnings),
        };
        return true;
    }

    private static bool TryReadRuns(MemorySource source, KdumpHeader header, out List<MemorySegment> runs, out long pages,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        var found = new List<MemorySegment>();
        long rank = 0;
        bool isRead = true;
        long first = -1; // of the run at hand
        byte[] chunk = new byte[ChunkSize];
        long last = (long)header.Pages - 1;
        for (long page = 0; page <= last && isRead && found.Count <= MaxRuns; page += ChunkSize * 8L)
        {
            int words = (int)Math.Min(ChunkSize / 8, (last - page) / 64 + 1);
            Span<byte> part = chunk.AsSpan(0, words * 8);
            isRead = source.TryRead(header.BitmapOffset + page / 8, part);
            for (int i = 0; i < words && isRead; i++)
            {
                long start = page + i * 64L;
                ulong bits = BinaryPrimitives.ReadUInt64LittleEndian(part[(i * 8)..]);
                bits = last - start < 63 ? bits & ((2UL << (int)(last - start)) - 1) : bits;
                AddRuns(found, bits, start, ref first, ref rank);
            }
        }

        End(found, (long)header.Pages, ref first, ref rank);
        (runs, pages) = (found, rank);
        error = isRead && found.Count <= MaxRuns ? null
            : PatchDiagnostic.Error(KernelDiagnosticCodes.KdumpBadTables,
                "the bitmap of the compressed dump cannot be read, or is of more runs than are kept") with
            {
                FileOffset = header.BitmapOffset,
                Found = string.Create(CultureInfo.InvariantCulture, $"{found.Count} runs of pages"),
                Expected = string.Create(CultureInfo.InvariantCulture, $"at most {MaxRuns}"),
                Help = "Take the dump again, or as an ELF core.",
            };
        return error is null;
    }

    private static void AddRuns(List<MemorySegment> runs, ulong bits, long start, ref long first, ref long rank)
    {
        for (int at = 0; at < 64;)
        {
            // Towards the next change: of a run its end, else the next page that is there.
            ulong ahead = (first < 0 ? bits : ~bits) >> at;
            if (ahead == 0)
            {
                return;
            }

            at += BitOperations.TrailingZeroCount(ahead);
            if (first < 0)
            {
                first = start + at;
            }
            else
            {
                End(runs, start + at, ref first, ref rank);
            }
        }
    }

    private static void End(List<MemorySegment> runs, long end, ref long first, ref long rank)
    {
        if (first >= 0)
        {
            runs.Add(new MemorySegment(
                (ulong)first * KdumpHeader.BlockSize, rank * KdumpHeader.BlockSize, (end - first) * KdumpHeader.BlockSize));
            rank += end - first;
            first = -1;
        }
    }

    private static MemorySegment[] Within(List<MemorySegment> runs, long length) =>
        [.. runs.Where(r => r.FileOffset < length).Select(r => r with { Length = Math.Min(r.Length, length - r.FileOffset) })];

    private static void WarnIfCut(MemorySource source, KdumpHeader header, KdumpPages file, long pages, long descriptors,
        List<PatchDiagnostic> warnings)
    {
        bool isIncomplete = (header.Status & Incomplete) != 0;
        if (descriptors == pages && !isIncomplete && file.IsInFile(pages - 1))
        {
            return;
        }

        warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreTruncated, "the dump ends before the memory it announces") with
        {
            FileOffset = source.Length,
            Found = isIncomplete ? "a dump that its writer calls incomplete"
                : string.Create(CultureInfo.InvariantCulture, $"descriptors of {descriptors} of {pages} pages")
                    + (descriptors == pages ? ", the last one without its bytes" : ""),
            Expected = "all of them within the file",
            Help = "What is missing counts as unreadable; take the dump again for the rest.",
        });
    }

    private static VmCoreInfo? ReadNotes(MemorySource source, KdumpHeader header, List<PatchDiagnostic> warnings)
    {
        (ulong offset, ulong length) = header.VmCoreInfo;
        if (length > 0 && length <= VmCoreInfo.MaxLength && FileRange.Fits(offset, length, source.Length))
        {
            byte[] text = new byte[length];
            if (source.TryRead((long)offset, text))
            {
                return new VmCoreInfo(text);
            }
        }
        else if (length > 0)
        {
            warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreBadNotes, "the dump's note VMCOREINFO is not in the file") with
            {
                Found = $"{FileRange.Describe(offset, length)}",
                Expected = $"at most {VmCoreInfo.MaxLength} bytes within {FileRange.Hex((ulong)source.Length)}",
                Help = "The kernel is looked for without it.",
            });
        }

        (offset, length) = header.Notes;
        return length > 0 && FileRange.Fits(offset, length, source.Length)
            ? CoreNotes.Find(source, [new MemorySegment(0, (long)offset, (long)length)], warnings) : null;
    }
}
