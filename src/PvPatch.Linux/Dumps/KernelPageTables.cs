using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// Finds page tables of x86-64 in physical memory and reads the part of them that maps a kernel image: the GiB from 0xffffffff80000000 on.
/// </summary>
/// <remarks>
/// A kernel's pages need not follow each other in physical memory: those of a Xen PV guest lie where the hypervisor had room. Nor
/// does a run of pages that looks like the kernel have to be the one that runs: loaders leave copies. The tables say which pages count.
/// Which processor uses them is of no matter: all of a kernel's tables share the part for its image. The fourth level's last entry
/// leads there also where there are five levels.
/// </remarks>
internal sealed class KernelPageTables
{
    private const ulong WindowStart = 0xffffffff80000000;
    private const int PageSize = 4096;
    private const int LargePageSize = 2 << 20;
    private const int Entries = 512;

    // Entry of the fourth level for the last 512 GiB, and of the third for the last GiB but one.
    private const int LastEntry = 511;
    private const int ImageEntry = 510;

    private const ulong Present = 1;
    private const ulong Large = 1 << 7;
    private const ulong FrameMask = 0x000ffffffffff000;

    // Bounds the work on files that are made of tables: a search of 16 GiB, 64 different tables read whole.
    private const long MaxPages = 4 << 20;
    private const int MaxTables = 64;
    private const int FewestEntries = 2;

    private readonly MemorySpace _memory;
    private readonly HashSet<ulong> _seen = [];
    private int _maps;

    public KernelPageTables(MemorySpace memory)
    {
        _memory = memory;
    }

    /// <summary>Maps of the image's GiB by all tables whose first page is one of a range, each different one once.</summary>
    /// <param name="first">The physical address of the first page.</param>
    /// <param name="last">The last physical address.</param>
    public IEnumerable<MemorySpace> Maps(ulong first = 0, ulong last = ulong.MaxValue)
    {
        long pages = 0;
        for (int i = _memory.IndexEndingBehind(first); i < _memory.Segments.Count && _memory.Segments[i].Address <= last; i++)
        {
            MemorySegment segment = _memory.Segments[i];
            ulong start = Math.Max(first, segment.Address);
            ulong end = Math.Min(last, segment.Last);
            ulong skip = unchecked((ulong)-(long)start) % PageSize;
            for (ulong page = start + skip; page >= start && page <= end && end - page >= PageSize - 1 && pages < MaxPages
                && _maps < MaxTables; page = unchecked(page + PageSize))
            {
                pages++;
                if (TryMap(page) is MemorySpace map)
                {
                    yield return map;
                }
            }
        }
    }

    private MemorySpace? TryMap(ulong root)
    {
        // Most pages are none: one word of each is read.
        if (!TryTable(root, LastEntry, out ulong third) || !TryTable(third, ImageEntry, out ulong second) || !_seen.Add(second))
        {
            return null;
        }

        ulong[] entries = new ulong[Entries];
        if (!TryReadTable(second, entries) || !IsPlausible(entries))
        {
            return null;
        }

        _maps++;
        var segments = new List<MemorySegment>();
        ulong[] last = new ulong[Entries];
        for (int i = 0; i < Entries; i++)
        {
            ulong address = WindowStart + (ulong)i * LargePageSize;
            if (IsLarge(entries[i]))
            {
                Add(segments, address, entries[i] & FrameMask & ~(ulong)(LargePageSize - 1), LargePageSize);
            }
            else if ((entries[i] & Present) != 0 && TryReadTable(entries[i] & FrameMask, last))
            {
                for (int j = 0; j < Entries; j++)
                {
                    if ((last[j] & Present) != 0)
                    {
                        Add(segments, address + (ulong)j * PageSize, last[j] & FrameMask, PageSize);
                    }
                }
            }
        }

        return segments.Count == 0 ? null : MemorySpace.Create(_memory.Source, segments);
    }

    // Entries of the kernel's own tables are zero or lead to memory; other pages that got here hold data.
    private bool IsPlausible(ulong[] entries)
    {
        int present = 0;
        foreach (ulong entry in entries)
        {
            if (entry == 0)
            {
                continue;
            }

            if ((entry & Present) == 0 || !Holds(entry & FrameMask))
            {
                return false;
            }

            present++;
        }

        return present >= FewestEntries;
    }

    private static bool IsLarge(ulong entry) => (entry & (Present | Large)) == (Present | Large);

    private bool TryTable(ulong table, int index, out ulong next)
    {
        Span<byte> word = stackalloc byte[8];
        next = 0;
        if (!_memory.TryRead(table + (ulong)(index * 8), word))
        {
            return false;
        }

        ulong entry = BinaryPrimitives.ReadUInt64LittleEndian(word);
        next = entry & FrameMask;
        return (entry & (Present | Large)) == Present && Holds(next);
    }

    private bool TryReadTable(ulong table, ulong[] entries) => _memory.TryRead(table, MemoryMarshal.AsBytes(entries.AsSpan()));

    private bool Holds(ulong address)
    {
        int index = _memory.IndexEndingBehind(address);
        return index < _memory.Segments.Count && _memory.Segments[index].Address <= address;
    }

    // The part of a page that the file has, as far as it lies in one segment: kernel memory is not at the edge of anything.
    private void Add(List<MemorySegment> segments, ulong address, ulong physical, int length)
    {
        int index = _memory.IndexEndingBehind(physical);
        if (index < _memory.Segments.Count && _memory.Segments[index] is MemorySegment there && there.Address <= physical)
        {
            long start = (long)(physical - there.Address);
            segments.Add(new MemorySegment(address, there.FileOffset + start, Math.Min(length, there.Length - start)));
        }
    }
}
