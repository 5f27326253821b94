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
}
