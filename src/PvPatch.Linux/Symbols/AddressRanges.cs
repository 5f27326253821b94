using PvPatch.Linux.Files;

namespace PvPatch.Linux.Symbols;

/// <summary>
/// The ranges of memory an image fills, so that an address in a gap, or in another section, is not named by a symbol far before it.
/// </summary>
internal sealed class AddressRanges
{
    private readonly (ulong Start, ulong Last)[] _ranges;

    private AddressRanges((ulong Start, ulong Last)[] ranges)
    {
        _ranges = ranges;
    }

    /// <summary>
    /// The ranges of an image: its loaded sections, or segments where it has no section headers; null where it has neither.
    /// </summary>
    public static AddressRanges? Of(ElfImage image)
    {
        (ulong Start, ulong Last)[] ranges =
        [
            .. image.Sections
                .Where(static s => s.IsAllocated && s.Size > 0 && (s.Flags & ElfSectionAttributes.ThreadLocal) == 0)
                .Select(static s => Range(s.Address.Value, s.Size)),
        ];
        if (ranges.Length == 0)
        {
            ranges =
            [
                .. image.Segments
                    .Where(static s => s.Type == ElfSegmentType.Load && s.MemorySize > 0)
                    .Select(static s => Range(s.Address.Value, s.MemorySize)),
            ];
        }

        return ranges.Length == 0 ? null : new AddressRanges(ranges);
    }

    /// <summary>Whether one range holds both addresses.</summary>
    public bool HoldsBoth(ulong one, ulong other)
    {
        foreach ((ulong start, ulong last) in _ranges)
        {
            if (one >= start && one <= last && other >= start && other <= last)
            {
                return true;
            }
        }

        return false;
    }

    private static (ulong Start, ulong Last) Range(ulong address, ulong size) =>
        (address, size - 1 > ulong.MaxValue - address ? ulong.MaxValue : address + (size - 1));
}
