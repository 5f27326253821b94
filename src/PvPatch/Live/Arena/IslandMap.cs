namespace PvPatch.Live;

/// <summary>Which site an island belongs to, by address: for each 16 bytes of the pages that hold islands. Read without a lock.</summary>
internal sealed class IslandMap(ArenaMemory memory)
{
    private const int PageSize = 4096;
    private const int UnitSize = StubAllocator.Alignment;

    // For each unit the site, counted from the arena's start, and one more; 0 for none.
    private readonly uint[]?[] _pages = new uint[(memory.Size + PageSize - 1) / PageSize][];

    /// <summary>Notes an island. Called under the store's lock.</summary>
    public void Add(VirtualAddress island, int length, uint site) => Set(island, length, site + 1);

    /// <summary>Forgets an island. Called under the store's lock.</summary>
    public void Remove(VirtualAddress island, int length) => Set(island, length, 0);

    /// <summary>The site of the island at an address.</summary>
    public bool TryFind(VirtualAddress address, out uint site)
    {
        site = 0;
        if (!memory.Contains(address, 1))
        {
            return false;
        }

        long offset = address - memory.Start;
        if (Volatile.Read(ref _pages[offset / PageSize]) is not uint[] units)
        {
            return false;
        }

        site = Volatile.Read(ref units[offset % PageSize / UnitSize]);
        return site-- != 0;
    }

    private void Set(VirtualAddress island, int length, uint value)
    {
        long offset = island - memory.Start;
        for (long at = offset; at < offset + length; at += UnitSize)
        {
            ref uint[]? units = ref _pages[at / PageSize];
            if (units is null)
            {
                Volatile.Write(ref units, new uint[PageSize / UnitSize]);
            }

            Volatile.Write(ref units[at % PageSize / UnitSize], value);
        }
    }
}
