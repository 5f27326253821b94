namespace PvPatch.Linux.Dumps;

/// <summary>One address space of a memory file: segments in order of address, none sharing an address.</summary>
internal sealed class MemorySpace
{
    private readonly MemorySource _source;
    private readonly MemorySegment[] _segments;

    private MemorySpace(MemorySource source, MemorySegment[] segments, int overlaps)
    {
        _source = source;
        _segments = segments;
        Overlaps = overlaps;
    }

    public IReadOnlyList<MemorySegment> Segments => _segments;

    public bool IsEmpty => _segments.Length == 0;

    /// <summary>Number of segments with addresses of another one.</summary>
    public int Overlaps { get; }

    public MemorySource Source => _source;

    /// <summary>
    /// Makes a space. Where segments share addresses, the one that starts first keeps them, of two that start together the first in the
    /// list.
    /// </summary>
    public static MemorySpace Create(MemorySource source, List<MemorySegment> segments)
    {
        MemorySegment[] sorted = [.. segments.Where(static s => s.Length > 0)];
        int[] order = [.. Enumerable.Range(0, sorted.Length)];
        Array.Sort(
            order, (a, b) => sorted[a].Address != sorted[b].Address ? sorted[a].Address.CompareTo(sorted[b].Address) : a.CompareTo(b));
        var kept = new List<MemorySegment>(sorted.Length);
        int overlaps = 0;
        foreach (int index in order)
        {
            MemorySegment segment = sorted[index];
            if (kept.Count > 0 && segment.Address <= kept[^1].Last)
            {
                overlaps++;
                if (segment.Last <= kept[^1].Last)
                {
                    continue;
                }

                long shared = (long)(kept[^1].Last - segment.Address) + 1;
                segment = new MemorySegment(segment.Address + (ulong)shared, segment.FileOffset + shared, segment.Length - shared);
            }

            // A core of page tables has a header for each run of pages; those that go on in the file too are one.
            if (kept.Count > 0 && kept[^1].Last + 1 == segment.Address && kept[^1].FileOffset + kept[^1].Length == segment.FileOffset
                && long.MaxValue - segment.Length >= kept[^1].Length)
            {
                kept[^1] = kept[^1] with { Length = kept[^1].Length + segment.Length };
            }
            else
            {
                kept.Add(segment);
            }
        }

        return new MemorySpace(source, [.. kept], overlaps);
    }

    /// <summary>Makes a space of segments that are in order of address and share none.</summary>
    public static MemorySpace OfSorted(MemorySource source, MemorySegment[] segments) => new(source, segments, 0);

    /// <summary>The first segment that ends at or behind an address, by its index; the number of segments where there is none.</summary>
    public int IndexEndingBehind(ulong address)
    {
        int low = 0;
        int high = _segments.Length;
        while (low < high)
        {
            int middle = low + ((high - low) / 2);
            if (_segments[middle].Last < address)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low;
    }

    /// <summary>Offset in the file of the byte at an address; <see langword="null"/> for an address that the file lacks.</summary>
    public long? OffsetOf(ulong address)
    {
        int index = IndexEndingBehind(address);
        return index < _segments.Length && _segments[index].Address <= address
            ? _segments[index].FileOffset + (long)(address - _segments[index].Address) : null;
    }

    /// <summary>Reads all of a range, which may run over segments that follow each other, or says that it can't.</summary>
    public bool TryRead(ulong address, Span<byte> destination)
    {
        for (int i = IndexEndingBehind(address); !destination.IsEmpty; i++)
        {
            if (i == _segments.Length || _segments[i].Address > address)
            {
                return false;
            }

            MemorySegment segment = _segments[i];
            long start = (long)(address - segment.Address);
            int part = (int)Math.Min(segment.Length - start, destination.Length);
            if (!_source.TryRead(segment.FileOffset + start, destination[..part]))
            {
                return false;
            }

            destination = destination[part..];
            address = unchecked(address + (ulong)part);
            if (address == 0 && !destination.IsEmpty)
            {
                return false; // Beyond the end of the address space.
            }
        }

        return true;
    }
}
