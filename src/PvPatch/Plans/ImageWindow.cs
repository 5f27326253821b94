using System.Runtime.InteropServices;
using PvPatch.Images;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>The segment that a walk over sites in order of address is in; it moves rarely.</summary>
internal ref struct ImageWindow(CodeImage image)
{
    private readonly CodeImage _image = image;
    private Span<byte> _bytes;

    public readonly Span<byte> Bytes => _bytes;

    public readonly ref byte First => ref MemoryMarshal.GetReference(_bytes);

    /// <summary>Run address of the first byte.</summary>
    public ulong Start { get; private set; }

    /// <summary>
    /// Bytes from the first on at which 16 can be read and written: there a site is handled as one vector, whatever its length.
    /// </summary>
    public readonly ulong VectorCount => (ulong)Math.Max(0, _bytes.Length - (SiteBytes.MaxLength - 1));

    /// <summary>The index of the first site from an index on that can't be handled as a vector in the segment where the walk is.</summary>
    public readonly int EndOf(ReadOnlySpan<PatchSite> sites, int index) => index + ~sites[index..].BinarySearch(VectorEnd);

    /// <summary>As above, of a plan's entries.</summary>
    public readonly int EndOf(ReadOnlySpan<PlanEntry> entries, int index) => index + ~entries[index..].BinarySearch(VectorEnd);

    private readonly Boundary VectorEnd => new(Start + VectorCount);

    /// <summary>The bytes of a site, in the segment the walk is in or in another that it goes to.</summary>
    public bool Reach(VirtualAddress address, int length, out Span<byte> there)
    {
        if (!Contains(address.Value, length))
        {
            if (_image.Find(address, length) is not CodeSegment segment)
            {
                there = default;
                return false;
            }

            _bytes = segment.Bytes.Span;
            Start = segment.Address.Value;
        }

        there = _bytes.Slice((int)(address.Value - Start), length);
        return true;
    }

    private readonly bool Contains(ulong address, int length) =>
        address >= Start && address - Start <= (ulong)_bytes.Length && (ulong)length <= (ulong)_bytes.Length - (address - Start);

    /// <summary>Stands between the sites before an address and those from it on: none is equal to it.</summary>
    private readonly struct Boundary(ulong address) : IComparable<PatchSite>, IComparable<PlanEntry>
    {
        public int CompareTo(PatchSite site) => site.Address.Value < address ? 1 : -1;

        public int CompareTo(PlanEntry entry) => entry.Address < address ? 1 : -1;
    }
}
