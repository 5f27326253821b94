using System.Runtime.InteropServices;

namespace PvPatch.Linux.Dumps;

/// <summary>Searches a memory file for the address of a kernel.</summary>
/// <remarks>
/// Kernels are moved by multiples of 2 MiB (CONFIG_PHYSICAL_ALIGN), so a few bytes at each such place are looked at first; then every page,
/// for 32-bit kernels aligned less and for raw memory with a base that is off. Both are bounded, whatever the file says of itself: 4 Mi
/// places, 16 GiB of pages.
/// </remarks>
internal sealed class DisplacementSearch
{
    private const ulong Large = 2 << 20;
    private const int Page = 4096;
    private const int ChunkSize = 64 * Page;
    private const int MaxPlaces = 4 << 20;
    private const long MaxPageBytes = 16L << 30;
    private const int AnchorLength = 16;

    // Where x86-64 kernels have their image, KASLR or not: 1 GiB from __START_KERNEL_map on (Documentation/arch/x86/x86_64/mm.rst).
    private const ulong WindowStart = 0xffffffff80000000;
    private const ulong WindowLast = 0xffffffffbfffffff;

    private readonly KernelSignature _signature;
    private readonly List<SignaturePiece> _anchors;
    private readonly HashSet<(MemorySpace Space, ulong Displacement)> _rejected = [];
    private int _places;
    private long _pageBytes;

    public DisplacementSearch(KernelSignature signature)
    {
        _signature = signature;

        // Code may have been changed at any one of its pieces, and the file may lack parts, so there are several.
        _anchors = [.. Spread(signature.Data, 3), .. Spread(signature.Code, 6)];
    }

    /// <summary>The lowest and highest addresses of the image.</summary>
    public (ulong Low, ulong High) Range => _signature.Range;

    /// <summary>Number of places examined.</summary>
    public long Places => _places + _pageBytes / Page;

    /// <summary>Whether there was more memory than the search examines.</summary>
    public bool IsExhausted => _places >= MaxPlaces || _pageBytes >= MaxPageBytes;

    /// <summary>The best match where none was sufficient.</summary>
    public MemoryMatch Best { get; private set; }

    /// <summary>The first kernel banner met during the search of pages; not needed where a kernel was found.</summary>
    public string? BannerSeen { get; private set; }

    public bool TryPlace(MemorySpace space, ulong displacement, out MemoryMatch match)
    {
        match = MemoryMatch.Compare(_signature, space, displacement);
        if (match.Matched > Best.Matched)
        {
            Best = match;
        }

        return match.IsKernel;
    }

    /// <summary>Examines the places at multiples of 2 MiB.</summary>
    public bool TryLarge(MemorySpace space, bool isWindowed, out ulong displacement, out MemoryMatch match)
    {
        Span<byte> there = stackalloc byte[AnchorLength];
        foreach (SignaturePiece anchor in _anchors)
        {
            foreach (MemorySegment segment in space.Segments)
            {
                if (!TryClip(segment, isWindowed, out ulong first, out ulong last))
                {
                    continue;
                }

                ulong address = first + unchecked(anchor.Address - first) % Large;
                while (address >= first && address <= last && _places < MaxPlaces)
                {
                    _places++;
                    displacement = unchecked(address - anchor.Address);
                    if (space.TryRead(address, there) && there.SequenceEqual(anchor.Bytes.Span[..AnchorLength])
                        && TryOnce(space, displacement, out match))
                    {
                        return true;
                    }

                    address = unchecked(address + Large);
                }
            }
        }

        return None(out displacement, out match);
    }

    /// <summary>Examines every page.</summary>
    public bool TryPages(MemorySpace space, bool isWindowed, out ulong displacement, out MemoryMatch match)
    {
        byte[] chunk = new byte[ChunkSize];
        foreach (MemorySegment segment in space.Segments)
        {
            if (!TryClip(segment, isWindowed, out ulong first, out ulong last))
            {
                continue;
            }

            ulong skip = unchecked((ulong)-(long)first) % Page;
            if (skip > last - first)
            {
                continue;
            }

            for (ulong address = first + skip; last - address >= Page - 1 && _pageBytes < MaxPageBytes;)
            {
                int length = (int)Math.Min(last - address + 1, ChunkSize) & ~(Page - 1);
                _pageBytes += length;
                if (space.TryRead(address, chunk.AsSpan(0, length))
                    && TryChunk(space, address, chunk.AsSpan(0, length), out displacement, out match))
                {
                    return true;
                }

                if (last - address < (ulong)length + Page - 1)
                {
                    break;
                }

                address += (ulong)length;
            }
        }

        return None(out displacement, out match);
    }

    private bool TryChunk(MemorySpace space, ulong address, ReadOnlySpan<byte> chunk, out ulong displacement, out MemoryMatch match)
    {
        BannerSeen ??= FindBanner(chunk);
        foreach (SignaturePiece anchor in _anchors)
        {
            // Pieces lie within a page, so the words compared do too.
            ulong wanted = MemoryMarshal.Read<ulong>(anchor.Bytes.Span);
            for (int at = (int)(anchor.Address % Page); at < chunk.Length; at += Page)
            {
                displacement = unchecked(address + (ulong)at - anchor.Address);
                if (MemoryMarshal.Read<ulong>(chunk[at..]) == wanted && TryOnce(space, displacement, out match))
                {
                    return true;
                }
            }
        }

        return None(out displacement, out match);
    }

    // "Linux version 6.1.0-18-amd64 (user@host) ...": in the kernel's data it ends with a new line, in its log with nothing.
    private static string? FindBanner(ReadOnlySpan<byte> chunk)
    {
        ReadOnlySpan<byte> wanted = "Linux version "u8;
        for (int found; (found = chunk.IndexOf(wanted)) >= 0; chunk = chunk[wanted.Length..])
        {
            chunk = chunk[found..];
            ReadOnlySpan<byte> text = chunk[..Math.Min(chunk.Length, 512)];
            int end = text.IndexOfAnyExceptInRange((byte)' ', (byte)'~');
            text = end < 0 ? text : text[..end];
            if (text.Length > wanted.Length && char.IsAsciiDigit((char)text[wanted.Length]) && text.Contains((byte)'@'))
            {
                return System.Text.Encoding.ASCII.GetString(text).TrimEnd();
            }
        }

        return null;
    }

    private bool TryOnce(MemorySpace space, ulong displacement, out MemoryMatch match)
    {
        // A file made of one page over and over would have each place compared in full.
        match = default;
        return _rejected.Count < 1024 && _rejected.Add((space, displacement)) && TryPlace(space, displacement, out match);
    }

    private static bool TryClip(MemorySegment segment, bool isWindowed, out ulong first, out ulong last)
    {
        first = isWindowed ? Math.Max(segment.Address, WindowStart) : segment.Address;
        last = isWindowed ? Math.Min(segment.Last, WindowLast) : segment.Last;
        return first <= last;
    }

    private static bool None(out ulong displacement, out MemoryMatch match)
    {
        displacement = 0;
        match = default;
        return false;
    }

    private static IEnumerable<SignaturePiece> Spread(List<SignaturePiece> pieces, int count) =>
        Enumerable.Range(0, Math.Min(count, pieces.Count))
            .Select(i => pieces[(int)((long)i * pieces.Count / Math.Min(count, pieces.Count))]);
}
