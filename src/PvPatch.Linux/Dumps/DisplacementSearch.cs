using System.Runtime.InteropServices;

namespace PvPatch.Linux.Dumps;

/// <summary>Searches a memory file for the address of a kernel.</summary>
/// <remarks>
/// Kernels are moved by multiples of 2 MiB (CONFIG_PHYSICAL_ALIGN), so one piece at each such place is looked at first; then every page, for
/// 32-bit kernels aligned less and for raw memory with a base that is off by pages; and within the pages the kernel's banner, for a base
/// that is off by anything else. All is bounded, whatever the file says of itself: 4 Mi places, 16 GiB of pages, and 256 Ki pieces compared
/// where a place looked right and was not.
/// </remarks>
internal sealed class DisplacementSearch
{
    private const ulong Large = 2 << 20;
    private const int Page = 4096;
    private const int ChunkSize = 64 * Page;
    private const int MaxPlaces = 4 << 20;
    private const long MaxPageBytes = 16L << 30;
    private const int MaxPieces = 256 << 10;
    private const int Word = 8;

    // Behind the pages of a chunk, so that a banner that runs on into the next is seen: none is longer (KernelSignature).
    private const int Overlap = 512;

    // Where x86-64 kernels have their image, KASLR or not: 1 GiB from __START_KERNEL_map on (Documentation/arch/x86/x86_64/mm.rst).
    private const ulong WindowStart = 0xffffffff80000000;
    private const ulong WindowLast = 0xffffffffbfffffff;

    private readonly KernelSignature _signature;
    private readonly Anchor[] _anchors;
    private readonly HashSet<(MemorySpace Space, ulong Displacement)> _rejected = [];
    private int _places;
    private long _pageBytes;
    private int _pieces;

    /// <summary>A piece, and where in it the word with the most different bytes is.</summary>
    private readonly record struct Anchor(SignaturePiece Piece, int Mark);

    public DisplacementSearch(KernelSignature signature)
    {
        _signature = signature;

        // Code may have been changed at any one of its pieces, and the file may lack parts, so there are several.
        _anchors = [.. Spread(signature.Data, 3).Concat(Spread(signature.Code, 6)).Select(static p => new Anchor(p, MarkOf(p.Bytes.Span)))];
    }

    /// <summary>The lowest and highest addresses of the image.</summary>
    public (ulong Low, ulong High) Range => _signature.Range;

    /// <summary>Number of places examined.</summary>
    public long Places => _places + _pageBytes / Page;

    /// <summary>Whether there was more memory than the search examines.</summary>
    public bool IsExhausted => _places >= MaxPlaces || _pageBytes >= MaxPageBytes;

    /// <summary>Whether so many places looked like the kernel and were not it that the search was given up.</summary>
    public bool IsMisled => _pieces >= MaxPieces;

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
        Span<byte> buffer = stackalloc byte[KernelSignature.DataLength];
        foreach ((SignaturePiece anchor, _) in _anchors)
        {
            foreach (MemorySegment segment in space.Segments)
            {
                if (!TryClip(segment, isWindowed, out ulong first, out ulong last))
                {
                    continue;
                }

                Span<byte> there = buffer[..anchor.Bytes.Length];
                ulong address = first + unchecked(anchor.Address - first) % Large;
                while (address >= first && address <= last && _places < MaxPlaces && !IsMisled)
                {
                    _places++;
                    displacement = unchecked(address - anchor.Address);
                    if (space.TryRead(address, there) && there.SequenceEqual(anchor.Bytes.Span)
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
        byte[] chunk = new byte[ChunkSize + Overlap];
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

            for (ulong address = first + skip; last - address >= Page - 1 && _pageBytes < MaxPageBytes && !IsMisled;)
            {
                int length = (int)Math.Min(last - address, ChunkSize - 1) + 1 & ~(Page - 1);
                int all = (int)Math.Min(last - address, (ulong)(length + Overlap) - 1) + 1;
                _pageBytes += length;
                bool isRead = space.TryRead(address, chunk.AsSpan(0, all)) || (all > length && space.TryRead(address, chunk.AsSpan(0, all = length)));
                if (isRead && (TryChunk(space, address, chunk.AsSpan(0, length), out displacement, out match)
                    || TryBanner(space, address, chunk.AsSpan(0, all), out displacement, out match)))
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
        foreach ((SignaturePiece anchor, int mark) in _anchors)
        {
            // Pieces lie within a page. One word is compared first, and it is one that memory is not full of: pieces may begin with zeros.
            ReadOnlySpan<byte> bytes = anchor.Bytes.Span;
            ulong wanted = MemoryMarshal.Read<ulong>(bytes[mark..]);
            for (int at = (int)(anchor.Address % Page); at < chunk.Length; at += Page)
            {
                displacement = unchecked(address + (ulong)at - anchor.Address);
                if (MemoryMarshal.Read<ulong>(chunk[(at + mark)..]) == wanted && chunk.Slice(at, bytes.Length).SequenceEqual(bytes)
                    && TryOnce(space, displacement, out match))
                {
                    return true;
                }
            }
        }

        return None(out displacement, out match);
    }

    // The kernel's own banner tells its place to the byte. It may also stand in a log, or in a copy.
    private bool TryBanner(MemorySpace space, ulong address, ReadOnlySpan<byte> chunk, out ulong displacement, out MemoryMatch match)
    {
        BannerSeen ??= FindBanner(chunk);
        if (_signature.Banner is not SignaturePiece banner)
        {
            return None(out displacement, out match);
        }

        int found;
        for (int at = 0; (found = chunk[at..].IndexOf(banner.Bytes.Span)) >= 0 && !IsMisled; at += found + 1)
        {
            displacement = unchecked(address + (ulong)(at + found) - banner.Address);
            if (TryOnce(space, displacement, out match))
            {
                return true;
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
        // A file made of one page over and over would have each place compared in full: what that costs is what is bounded.
        match = default;
        if (IsMisled || !_rejected.Add((space, displacement)))
        {
            return false;
        }

        bool isKernel = TryPlace(space, displacement, out match);
        _pieces += 1 + match.Read;
        return isKernel;
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

    private static int MarkOf(ReadOnlySpan<byte> piece)
    {
        int best = 0;
        int most = 0;
        for (int at = 0; at + Word <= piece.Length; at += Word)
        {
            int distinct = 0;
            for (int i = at; i < at + Word; i++)
            {
                distinct += piece[at..i].Contains(piece[i]) ? 0 : 1;
            }

            if (distinct > most)
            {
                (best, most) = (at, distinct);
            }
        }

        return best;
    }

    private static IEnumerable<SignaturePiece> Spread(List<SignaturePiece> pieces, int count) =>
        Enumerable.Range(0, Math.Min(count, pieces.Count))
            .Select(i => pieces[(int)((long)i * pieces.Count / Math.Min(count, pieces.Count))]);
}
