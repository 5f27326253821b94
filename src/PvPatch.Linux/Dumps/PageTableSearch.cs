using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>Finds a kernel by the page tables in physical memory, and tells whether a kernel found there is the one in use.</summary>
internal static class PageTableSearch
{
    /// <summary>Whether page tables within a kernel, whose image has room for its first ones, lead to that kernel itself.</summary>
    /// <remarks>A copy that a loader or a hypervisor left has tables too, with addresses of somewhere else or of nothing.</remarks>
    /// <param name="image">The kernel's file.</param>
    /// <param name="range">The lowest and highest addresses of the image.</param>
    /// <param name="physical">The memory.</param>
    /// <param name="displacement">Where it was found: physical less link address.</param>
    public static bool LeadsTo(ElfImage image, (ulong Low, ulong High) range, MemorySpace physical, ulong displacement)
    {
        ulong low = unchecked(range.Low + displacement);
        ulong high = unchecked(range.High + displacement);
        long? slide = SlideVote.Take(image, range, physical, displacement);
        return low <= high && new KernelPageTables(physical).Maps(low, high).Any(map =>
            slide is null || map.OffsetOf(unchecked(range.Low + (ulong)slide.Value)) == physical.OffsetOf(low));
    }

    /// <summary>Finds a kernel through any page tables in a memory: of whatever processor or guest, the first in which it stands.</summary>
    public static bool TryFind(DisplacementSearch search, MemorySpace physical, [NotNullWhen(true)] out MemorySpace? space,
        out ulong displacement, out MemoryMatch match)
    {
        foreach (MemorySpace map in new KernelPageTables(physical).Maps())
        {
            space = map;
            displacement = 0;
            if (search.TryPlace(map, 0, out match) || search.TryLarge(map, true, out displacement, out match))
            {
                return true;
            }
        }

        space = null;
        displacement = 0;
        match = default;
        return false;
    }
}
