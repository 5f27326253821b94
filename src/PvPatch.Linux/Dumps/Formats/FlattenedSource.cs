using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// A dump in makedumpfile's flattened form, read as the dump it stands for. It is the form for pipes: makedumpfile -F writes it, and QEMU
/// writes its compressed dumps so.
/// </summary>
/// <remarks>
/// <code>
/// 0x0000  "makedumpfile", four zeros, type 1, version 1         all numbers are 64 bits, big-endian
/// 0x1000  offset, size, that many bytes                         a record: where in the dump its bytes belong
///         offset, size, that many bytes
///         -1, -1                                                the end
/// </code>
/// What makedumpfile -R makes of it is a file in which later records are written over earlier ones, and in which what no record has is
/// zero; so is what is read here. Writers go back: the header is written once more when all is known.
/// </remarks>
internal sealed class FlattenedSource : MemorySource
{
    private const int HeaderSize = 4096;
    private const int RecordSize = 16;

    // QEMU's records hold 16 KiB, so this is 256 GiB of compressed memory.
    private const int MaxRecords = 16 << 20;
    private const int MaxEmpty = 4096;

    private readonly MemorySource _file;
    private readonly MemorySpace _records;

    private FlattenedSource(MemorySource file, MemorySegment[] records)
    {
        _file = file;
        _records = MemorySpace.OfSorted(file, records);
        Length = (long)records[^1].Last + 1;
    }

    /// <summary>The length of the dump, which makedumpfile -R would write.</summary>
    public override long Length { get; }

    public static bool HasMagic(ReadOnlySpan<byte> start) => start.StartsWith("makedumpfile\0\0\0\0"u8);

    /// <summary>Reads where the records are.</summary>
    /// <param name="file">The file; the source owns it then.</param>
    /// <param name="warnings">Gets a warning where the file is cut short (PV6125).</param>
    /// <param name="source">The dump.</param>
    /// <param name="error">Why there is none: a record that cannot be (PV6156), none at all (PV6124).</param>
    public static bool TryOpen(MemorySource file, List<PatchDiagnostic> warnings, [NotNullWhen(true)] out FlattenedSource? source,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        source = null;
        Span<byte> header = stackalloc byte[32];
        if (!file.TryRead(0, header) || Number(header[16..]) != 1 || Number(header[24..]) != 1)
        {
            error = Bad(16, "the header of the flattened dump is not one that is known", "type and version other than 1, or cut off",
                "type 1, version 1");
            return false;
        }

        var records = new List<MemorySegment>();
        if (!TryReadRecords(file, records, warnings, out error))
        {
            return false;
        }

        if (records.Count == 0)
        {
            error = DumpReader.Empty("the flattened dump has no records");
            return false;
        }

        source = new FlattenedSource(file, Written(records));
        return true;
    }

    public override bool TryRead(long offset, Span<byte> destination)
    {
        if (offset < 0 || offset > Length || destination.Length > Length - offset)
        {
            return false;
        }

        for (int i = _records.IndexEndingBehind((ulong)offset); !destination.IsEmpty; i++)
        {
            MemorySegment record = _records.Segments[i];
            long gap = Math.Min((long)record.Address - offset, destination.Length);
            if (gap > 0)
            {
                destination[..(int)gap].Clear();
                destination = destination[(int)gap..];
                offset += gap;
            }

            long start = offset - (long)record.Address;
            int part = (int)Math.Min(record.Length - start, destination.Length);
            if (part > 0 && !_file.TryRead(record.FileOffset + start, destination[..part]))
            {
                return false;
            }

            destination = destination[part..];
            offset += part;
        }

        return true;
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _file.Dispose();
        }

        base.Dispose(disposing);
    }

    private static bool TryReadRecords(
        MemorySource file, List<MemorySegment> records, List<PatchDiagnostic> warnings, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        Span<byte> header = stackalloc byte[RecordSize];
        int empty = 0;
        long at = HeaderSize;
        error = null;
        while (file.Length - at >= RecordSize && file.TryRead(at, header))
        {
            long offset = Number(header);
            long size = Number(header[8..]);
            if (offset == -1 && size == -1)
            {
                return true;
            }

            empty += size == 0 ? 1 : 0;
            if (offset < 0 || size < 0 || size > long.MaxValue - offset || empty > MaxEmpty || records.Count == MaxRecords)
            {
                error = Bad(at, "a record of the flattened dump is damaged",
                    string.Create(CultureInfo.InvariantCulture, $"{size} bytes for offset {offset}, behind {records.Count} records"),
                    "bytes for an offset in the dump, in a file of at most 16 Mi records");
                return false;
            }

            at += RecordSize;
            long there = Math.Min(size, file.Length - at);
            if (there > 0)
            {
                records.Add(new MemorySegment((ulong)offset, at, there));
            }

            if (there < size)
            {
                break;
            }

            at += size;
        }

        warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreTruncated, "the flattened dump ends before its end mark") with
        {
            FileOffset = file.Length,
            Found = string.Create(CultureInfo.InvariantCulture, $"{records.Count} records, and no end"),
            Expected = "a record of offset -1 and size -1 as the last one",
            Help = "What is missing counts as unreadable; take the dump again for the rest.",
        });
        return true;
    }

    // Records in order of offset, each with the bytes that no later one has written over.
    private static MemorySegment[] Written(List<MemorySegment> records)
    {
        bool isInOrder = true;
        for (int i = 1; i < records.Count && isInOrder; i++)
        {
            isInOrder = records[i].Address > records[i - 1].Last;
        }

        if (isInOrder)
        {
            return [.. records];
        }

        int[] order = [.. Enumerable.Range(0, records.Count)];
        Array.Sort(order, (a, b) => records[a].Address != records[b].Address ? records[a].Address.CompareTo(records[b].Address)
            : a.CompareTo(b));
        var open = new PriorityQueue<int, int>(); // the records that reach over the place, the latest first
        var written = new List<MemorySegment>(records.Count);
        ulong at = 0;
        for (int next = 0; next < order.Length || open.Count > 0;)
        {
            while (open.TryPeek(out int done, out _) && records[done].Last < at)
            {
                open.Dequeue();
            }

            if (open.Count == 0 && next < order.Length)
            {
                at = Math.Max(at, records[order[next]].Address);
            }

            for (; next < order.Length && records[order[next]].Address <= at; next++)
            {
                open.Enqueue(order[next], -order[next]);
            }

            if (open.TryPeek(out int top, out _) && records[top] is MemorySegment record && record.Last >= at)
            {
                ulong last = next < order.Length ? Math.Min(record.Last, records[order[next]].Address - 1) : record.Last;
                written.Add(new MemorySegment(at, record.FileOffset + (long)(at - record.Address), (long)(last - at) + 1));
                at = last + 1;
            }
        }

        return [.. written];
    }

    private static long Number(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadInt64BigEndian(bytes);

    private static PatchDiagnostic Bad(long at, string message, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.FlattenedBadRecord, message) with
        {
            FileOffset = at,
            Found = found,
            Expected = expected,
            Help = "The dump is damaged; take it again.",
        };
}
