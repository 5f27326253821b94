using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Machine;

/// <summary>
/// The translation lookaside buffer: which frame each page of the window showed when it was first accessed. It keeps that until it is
/// flushed, whatever becomes of the page tables, so a guest that flushes too little or too late sees old memory here as it would on
/// hardware.
/// </summary>
internal sealed unsafe class Translations(EmulatedCpu cpu, byte* memory, int word)
{
    private readonly HashSet<ulong> _pages = [];

    /// <summary>Looks an address up in page tables and maps its page.</summary>
    /// <returns>Whether the page may be accessed so.</returns>
    public bool TryAdd(ulong root, ulong address, bool isWrite)
    {
        ulong page = address & ~0xfffUL;
        if (_pages.Contains(page) || !TryWalk(new ReadOnlySpan<byte>(memory, Size), root, page, word, out ulong entry)
            || (isWrite && (entry & WritableBit) == 0))
        {
            return false;
        }

        ulong frame = entry & ~0xfffUL;
        return frame <= Size - EmulatedCpu.PageSize
            && cpu.TryMap(page, memory + frame, EmulatedCpu.PageSize, (entry & WritableBit) != 0)
            && _pages.Add(page);
    }

    /// <summary>Forgets all pages.</summary>
    public void Flush()
    {
        foreach (ulong page in _pages)
        {
            cpu.Unmap(page);
        }

        _pages.Clear();
    }

    /// <summary>Forgets one page.</summary>
    public void Flush(ulong address)
    {
        if (_pages.Remove(address & ~0xfffUL))
        {
            cpu.Unmap(address & ~0xfffUL);
        }
    }

    /// <summary>Walks page tables in a guest's memory: four levels of 512 entries, or two of 1024.</summary>
    public static bool TryWalk(ReadOnlySpan<byte> memory, ulong root, ulong address, int word, out ulong entry)
    {
        int bits = word == 8 ? 9 : 10;
        entry = root | PresentBit;
        for (int shift = 12 + (bits * (word == 8 ? 3 : 1)); shift >= 12; shift -= bits)
        {
            ulong table = entry & ~0xfffUL;
            ulong index = address >> shift & ((1UL << bits) - 1);
            if ((entry & PresentBit) == 0 || table > Size - EmulatedCpu.PageSize)
            {
                return false;
            }

            entry = ReadWord(memory, table + (index * (ulong)word), word);
        }

        return (entry & PresentBit) != 0;
    }
}
