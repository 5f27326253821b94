namespace PvPatch.Live;

/// <summary>
/// From an address to the site whose operation runs there: in the site itself, in one of its islands, in its forwarding island. Takes no lock and allocates nothing.
/// </summary>
internal static class SiteFinder
{
    // What a two-byte jump reaches from behind itself, and the island there.
    private const int FarthestBefore = 128 - 2;
    private const int FarthestBehind = 2 + 127 + EmittedSite.IslandLength;

    /// <summary>The site that an address belongs to.</summary>
    public static bool TryFind(CodeArena arena, VirtualAddress address, out LiveSite site)
    {
        if (arena.Islands.TryFindSite(address, out VirtualAddress owner))
        {
            address = owner;
        }

        // Code with sites of several layouts has a block for each of these.
        foreach (CodeBlock block in arena.Registry.InPageOf(address))
        {
            if (block.Contains(address) && TryFindIn(block, (uint)(address - arena.Address), out site))
            {
                return true;
            }
        }

        site = default;
        return false;
    }

    private static bool TryFindIn(CodeBlock block, uint offset, out LiveSite site)
    {
        ReadOnlySpan<SiteRecord> records = block.Records;
        int behind = FirstBehind(records, offset);
        if (behind > 0 && offset - records[behind - 1].Offset < block.KindOf(behind - 1).Budget)
        {
            site = new LiveSite(block, behind - 1);
            return true;
        }

        for (int i = behind - 1; i >= 0 && offset - records[i].Offset <= FarthestBehind; i--)
        {
            if (IsInForwarding(records[i], offset))
            {
                site = new LiveSite(block, i);
                return true;
            }
        }

        for (int i = behind; i < records.Length && records[i].Offset - offset <= FarthestBefore; i++)
        {
            if (IsInForwarding(records[i], offset))
            {
                site = new LiveSite(block, i);
                return true;
            }
        }

        site = default;
        return false;
    }

    /// <summary>The first site that begins behind an offset.</summary>
    private static int FirstBehind(ReadOnlySpan<SiteRecord> records, uint offset)
    {
        int low = 0;
        int high = records.Length;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (records[middle].Offset <= offset)
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

    private static bool IsInForwarding(in SiteRecord record, uint offset)
    {
        long into = offset - (record.Offset + 2L + record.Forward);
        return record.Forward != 0 && into is >= 0 and < EmittedSite.IslandLength;
    }
}
