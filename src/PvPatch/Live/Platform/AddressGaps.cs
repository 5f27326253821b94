using System.Globalization;

namespace PvPatch.Live.Platform;

/// <summary>Finds room near an address in the list of what a process has mapped (<c>/proc/self/maps</c>, proc(5)).</summary>
internal static class AddressGaps
{
    /// <summary>Kept free at both ends of the reach, for the bytes of an instruction around a displacement.</summary>
    private const ulong Margin = 1 << 16;

    /// <summary>What a 32-bit displacement reaches.</summary>
    public const ulong Near = (1UL << 31) - Margin;

    /// <summary>All of user space.</summary>
    public const ulong Far = 1UL << 47;

    // Below is what vm.mmap_min_addr keeps (64 KiB by default); above is the end of user space with 4-level tables.
    private const ulong Lowest = 1 << 20;
    private const ulong Highest = 0x7fff_ffff_0000;

    /// <summary>One mapping: first byte, first byte behind it, whether code may run there.</summary>
    public readonly record struct Mapping(ulong Start, ulong End, bool Executable);

    /// <summary>Reads the list; lines that are not understood are passed over.</summary>
    public static List<Mapping> Parse(IEnumerable<string> lines)
    {
        var mappings = new List<Mapping>();
        foreach (string line in lines)
        {
            // 7f0c12345000-7f0c12346000 r-xp 00000000 fd:01 1234 /usr/lib/...
            int dash = line.IndexOf('-', StringComparison.Ordinal);
            int blank = line.IndexOf(' ', StringComparison.Ordinal);
            if (dash > 0 && blank > dash && line.Length > blank + 4
                && ulong.TryParse(line.AsSpan(0, dash), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong start)
                && ulong.TryParse(
                    line.AsSpan(dash + 1, blank - dash - 1), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong end))
            {
                mappings.Add(new Mapping(start, end, line[blank + 3] == 'x'));
            }
        }

        return mappings;
    }

    /// <summary>
    /// Where <paramref name="size"/> bytes fit so that all of them are in reach of <paramref name="near"/>, nearest first.
    /// </summary>
    /// <param name="mappings">What is mapped, in order of address.</param>
    /// <param name="near">The address to be in reach of.</param>
    /// <param name="size">Bytes, a multiple of <paramref name="granularity"/>.</param>
    /// <param name="granularity">Addresses are multiples of this power of two.</param>
    /// <param name="reach">How far the farthest byte may be.</param>
    public static List<ulong> Candidates(IReadOnlyList<Mapping> mappings, ulong near, ulong size, ulong granularity, ulong reach = Near)
    {
        ulong low = Math.Max(Lowest, near > reach ? near - reach : 0);
        ulong high = Math.Min(Highest, near < ulong.MaxValue - reach ? near + reach : ulong.MaxValue);
        var found = new List<ulong>();
        ulong start = 0;
        foreach (Mapping mapping in mappings.Append(new Mapping(Highest, Highest, false)))
        {
            AddGap(found, Math.Max(start, low), Math.Min(mapping.Start, high), near, size, granularity);
            start = Math.Max(start, mapping.End);
        }

        found.Sort((a, b) => Distance(a, near, size).CompareTo(Distance(b, near, size)));
        return found;
    }

    private static void AddGap(List<ulong> found, ulong start, ulong end, ulong near, ulong size, ulong granularity)
    {
        if (end <= start)
        {
            return;
        }

        start = start + granularity - 1 & ~(granularity - 1);
        if (end <= start || end - start < size)
        {
            return;
        }

        // The gap's end that is nearer; the kernel grows its own mappings downward from the upper end, so either is as good.
        ulong last = end - size & ~(granularity - 1);
        ulong place = last < start ? start : near >= end ? last : near <= start
            ? start : Math.Clamp(near & ~(granularity - 1), start, last);
        if (place >= start && place + size <= end)
        {
            found.Add(place);
        }
    }

    private static ulong Distance(ulong place, ulong near, ulong size) =>
        near < place ? place + size - near : near - Math.Min(place, near);
}
