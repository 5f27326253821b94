using System.Buffers;
using System.Globalization;
using System.Runtime.InteropServices;

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
    /// <param name="segments">
    /// The segments, in any order; neither their addresses nor their bytes may overlap. Those without bytes are passed over.
    /// </param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="bitness"/> is neither 32 nor 64.</exception>
    /// <exception cref="ArgumentException">
    /// Two segments share addresses or bytes, or a segment of 32-bit code does not end below 4 GiB.
    /// </exception>
    public CodeImage(int bitness, params IEnumerable<CodeSegment> segments)
    {
        ArgumentNullException.ThrowIfNull(segments);
        if (bitness is not (32 or 64))
        {
            throw new ArgumentOutOfRangeException(nameof(bitness), bitness, "the bitness of code is 32 or 64");
        }

        Bitness = bitness;
        // one without bytes could stand inside another and lead the search astray
        _segments = [.. segments.Where(static s => !s.Bytes.IsEmpty)];
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

        if (SharedBytes(_segments) is (CodeSegment one, CodeSegment other))
        {
            throw new ArgumentException($"segments {one} and {other} have bytes in common", nameof(segments));
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
    public IReadOnlyList<CodeSegment> Segments => Array.AsReadOnly(_segments);

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

    /// <summary>
    /// Two segments that hold one byte: a site written through one segment would change another site of the other, behind the back of the
    /// check that comes before the first write.
    /// </summary>
    private static (CodeSegment One, CodeSegment Other)? SharedBytes(CodeSegment[] segments)
    {
        var byOwner = new Dictionary<object, List<(int Start, CodeSegment Segment)>>(ReferenceEqualityComparer.Instance);
        var native = new List<CodeSegment>();
        foreach (CodeSegment segment in segments)
        {
            object? owner = null;
            int start = 0;
            if (MemoryMarshal.TryGetArray(segment.Bytes, out ArraySegment<byte> array))
            {
                (owner, start) = (array.Array!, array.Offset);
            }
            else
            {
                native.Add(segment);
                if (MemoryMarshal.TryGetMemoryManager<byte, MemoryManager<byte>>(
                    segment.Bytes, out MemoryManager<byte>? manager, out start, out _))
                {
                    owner = manager;
                }
            }

            if (owner is not null)
            {
                (CollectionsMarshal.GetValueRefOrAddDefault(byOwner, owner, out _) ??= []).Add((start, segment));
            }
        }

        foreach (List<(int Start, CodeSegment Segment)> shared in byOwner.Values)
        {
            shared.Sort(static (a, b) => a.Start.CompareTo(b.Start));
            for (int i = 1; i < shared.Count; i++)
            {
                if (shared[i].Start - shared[i - 1].Start < shared[i - 1].Segment.Bytes.Length)
                {
                    return (shared[i - 1].Segment, shared[i].Segment);
                }
            }
        }

        if (native.Count == 0 || byOwner.Count <= 1)
        {
            return null;
        }

        // Two managers can give out the same native memory, or a manager a pinned array.
        foreach (CodeSegment one in native)
        {
            foreach (CodeSegment other in segments)
            {
                if (!ReferenceEquals(one, other) && one.Bytes.Span.Overlaps(other.Bytes.Span))
                {
                    return (one, other);
                }
            }
        }

        return null;
    }

    /// <summary>The bytes at an address, to read or write, or throws.</summary>
    /// <param name="address">Run address of the first byte.</param>
    /// <param name="length">How many bytes.</param>
    /// <returns>The bytes in the caller's memory.</returns>
    /// <exception cref="PatchException">No segment holds them all (PV4001).</exception>
    public Span<byte> GetBytes(VirtualAddress address, int length) =>
        TryGetBytes(address, length, out Span<byte> bytes)
            ? bytes
            : throw new PatchException(
                PatchDiagnostic.Error(DiagnosticCodes.PlanOutsideImage, "no segment of the image holds these bytes as a whole") with
                {
                    Address = address,
                    Found = $"{length} bytes",
                    Expected = ToString(),
                });

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Bitness}-bit, {string.Join(", ", (object[])_segments)}");
}
