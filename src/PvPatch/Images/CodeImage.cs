using System.Globalization;

namespace PvPatch.Images;

/// <summary>
/// Code to be patched: one or more segments of the caller's own bytes, each with the address at which it runs, and the bitness of
/// the code. An image owns nothing and copies nothing.
/// </summary>
public sealed class CodeImage
{
    private readonly CodeSegment[] _segments;

    /// <summary>Makes an image of several segments.</summary>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="segments">The segments, in any order; they must not overlap. Those without bytes are passed over.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="bitness"/> is neither 32 nor 64.</exception>
    /// <exception cref="ArgumentException">Two segments overlap, or a segment of 32-bit code does not end below 4 GiB.</exception>
    public CodeImage(int bitness, params IEnumerable<CodeSegment> segments)
    {
        ArgumentNullException.ThrowIfNull(segments);
        if (bitness is not (32 or 64))
        {
            throw new ArgumentOutOfRangeException(nameof(bitness), bitness, "the bitness of code is 32 or 64");
        }

        Bitness = bitness;
        _segments = [.. segments.Where(static s => !s.Bytes.IsEmpty)]; // one without bytes could stand inside another and lead the search astray
        Array.Sort(_segments, static (a, b) => a.Address.CompareTo(b.Address));
        CodeSegment? before = null;
        foreach (CodeSegment segment in _segments)
        {
            ulong last = segment.Address.Value + (ulong)(segment.Bytes.Length - 1);
            if (bitness == 32 && last > uint.MaxValue)
            {
                throw new ArgumentException($"segment {segment} of 32-bit code does not end below 4 GiB", nameof(segments));
            }

            if (before is not null && before.Contains(segment.Address, 1))
            {
                throw new ArgumentException($"segments {before} and {segment} overlap", nameof(segments));
            }

            before = segment;
        }
    }

    /// <summary>Makes an image of one segment.</summary>
    /// <param name="address">Run address of the first byte.</param>
    /// <param name="bytes">The caller's bytes, written in place by an applier.</param>
    /// <param name="bitness">32 or 64.</param>
    public CodeImage(VirtualAddress address, Memory<byte> bytes, int bitness = 64)
        : this(bitness, [new CodeSegment("code", address, bytes)])
    {
    }

    /// <summary>32 or 64.</summary>
    public int Bitness { get; }

    /// <summary>The segments in order of address.</summary>
    public IReadOnlyList<CodeSegment> Segments => _segments;

    /// <summary>Finds the segment that holds a stretch of bytes as a whole.</summary>
    /// <param name="address">Run address of the first byte.</param>
    /// <param name="length">How many bytes.</param>
    /// <returns>The segment, or <see langword="null"/> where no single one holds them all.</returns>
    public CodeSegment? Find(VirtualAddress address, int length)
    {
        int low = 0;
        int high = _segments.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            CodeSegment segment = _segments[middle];
            if (segment.Contains(address, length))
            {
                return segment;
            }

            if (segment.Address > address)
            {
                high = middle - 1;
            }
            else
            {
                low = middle + 1;
            }
        }

        return null;
    }

    /// <summary>The bytes at an address, to read or write.</summary>
    /// <param name="address">Run address of the first byte.</param>
    /// <param name="length">How many bytes.</param>
    /// <param name="bytes">The bytes in the caller's memory.</param>
    /// <returns>Whether one segment holds them all.</returns>
    public bool TryGetBytes(VirtualAddress address, int length, out Span<byte> bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        if (Find(address, length) is CodeSegment segment)
        {
            bytes = segment.Bytes.Span.Slice((int)(address - segment.Address), length);
            return true;
        }

        bytes = default;
        return false;
    }

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Bitness}-bit, {string.Join(", ", (object[])_segments)}");
}
