using System.Buffers.Binary;
using System.Globalization;

namespace PvPatch.Linux.Dumps;

/// <summary>The pages of a kdump-compressed dump, one after the other as their descriptors are, each unpacked when it is read.</summary>
/// <remarks>
/// A descriptor: offset of the page's bytes in the file (8 bytes), their number (4), flags (4: how they are compressed; 0 for not at all),
/// the kernel's flags of the page (8). Pages may share bytes: those of zeros do.
/// </remarks>
internal sealed class KdumpPages : MemorySource
{
    public const int DescriptorSize = 24;

    private const int PageSize = KdumpHeader.BlockSize;
    private const int CachedPages = 64; // 256 KiB: sites, tables and pieces of a kernel are read many to a page
    private const int DescriptorsRead = 128;
    private const int MaxCounted = 1 << 16;

    private readonly Lock _gate = new();
    private readonly MemorySource _file;
    private readonly long _descriptorOffset;
    private readonly long _count;
    private readonly PageCompression _compression = new();
    private readonly byte[]?[] _cache = new byte[CachedPages][];
    private readonly long[] _cached = new long[CachedPages];
    private readonly byte[] _packed = new byte[PageSize];
    private readonly byte[] _descriptors = new byte[DescriptorsRead * DescriptorSize];
    private readonly HashSet<long> _bad = [];
    private long _firstDescriptor = -1;
    private PatchDiagnostic? _firstBad;

    /// <param name="file">The dump; owned from here on.</param>
    /// <param name="descriptorOffset">Offset of the first descriptor.</param>
    /// <param name="count">The number of descriptors, all in the file.</param>
    public KdumpPages(MemorySource file, long descriptorOffset, long count)
    {
        _file = file;
        _descriptorOffset = descriptorOffset;
        _count = count;
        _cached.AsSpan().Fill(-1);
    }

    public override long Length => _count * PageSize;

    /// <summary>What was met so far that the dump has and that cannot be unpacked (PV6154).</summary>
    public override PatchDiagnostic? Damage
    {
        get
        {
            lock (_gate)
            {
                string count = string.Create(CultureInfo.InvariantCulture, $"{_bad.Count}{(_bad.Count == MaxCounted ? " or more" : "")}");
                return _firstBad is null ? null : _firstBad with { Found = $"{count} pages, the first one {_firstBad.Found}" };
            }
        }
    }

    /// <summary>Whether a page's packed bytes lie in the file.</summary>
    public bool IsInFile(long page)
    {
        lock (_gate)
        {
            return page >= 0 && page < _count && TryDescriptor(page, out _, out _, out _);
        }
    }

    public override bool TryRead(long offset, Span<byte> destination)
    {
        if (offset < 0 || offset > Length || destination.Length > Length - offset)
        {
            return false;
        }

        lock (_gate)
        {
            while (!destination.IsEmpty)
            {
                long page = Math.DivRem(offset, PageSize, out long start);
                int part = (int)Math.Min(PageSize - start, destination.Length);
                if (!TryReadPart(page, (int)start, destination[..part]))
                {
                    return false;
                }

                destination = destination[part..];
                offset += part;
            }
        }

        return true;
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _compression.Dispose();
            _file.Dispose();
        }

        base.Dispose(disposing);
    }

    // Whole pages go where they are wanted; of others more will be.
    private bool TryReadPart(long page, int start, Span<byte> destination)
    {
        int slot = (int)(page % CachedPages);
        if (_cached[slot] == page)
        {
            _cache[slot].AsSpan(start, destination.Length).CopyTo(destination);
            return true;
        }

        if (destination.Length == PageSize)
        {
            return TryUnpack(page, destination);
        }

        byte[] whole = _cache[slot] ??= new byte[PageSize];
        _cached[slot] = -1;
        if (!TryUnpack(page, whole))
        {
            return false;
        }

        _cached[slot] = page;
        whole.AsSpan(start, destination.Length).CopyTo(destination);
        return true;
    }

    private bool TryUnpack(long page, Span<byte> whole)
    {
        if (!TryDescriptor(page, out long offset, out int size, out uint flags))
        {
            return Bad(page, string.Create(CultureInfo.InvariantCulture, $"with {size} bytes at 0x{offset:x}"));
        }

        if (!_file.TryRead(offset, _packed.AsSpan(0, size)))
        {
            return Bad(page, "with bytes that cannot be read");
        }

        if (flags == 0)
        {
            _packed.AsSpan(0, size).CopyTo(whole);
            return size == PageSize || Bad(page, string.Create(CultureInfo.InvariantCulture, $"of {size} bytes that are not compressed"));
        }

        return _compression.Unpack(flags, _packed, size, whole) is not string wrong || Bad(page, $"with {wrong}");
    }

    private bool TryDescriptor(long page, out long offset, out int size, out uint flags)
    {
        (offset, size, flags) = (0, 0, 0);
        long first = page - page % DescriptorsRead;
        Span<byte> there = _descriptors.AsSpan(0, (int)Math.Min(DescriptorsRead, _count - first) * DescriptorSize);
        if (first != _firstDescriptor)
        {
            _firstDescriptor = -1;
            if (!_file.TryRead(_descriptorOffset + first * DescriptorSize, there))
            {
                return false;
            }

            _firstDescriptor = first;
        }

        ReadOnlySpan<byte> descriptor = there.Slice((int)(page - first) * DescriptorSize, DescriptorSize);
        offset = BinaryPrimitives.ReadInt64LittleEndian(descriptor);
        size = BinaryPrimitives.ReadInt32LittleEndian(descriptor[8..]);
        flags = BinaryPrimitives.ReadUInt32LittleEndian(descriptor[12..]);
        return offset > 0 && size is > 0 and <= PageSize && offset <= _file.Length - size;
    }

    private bool Bad(long page, string what)
    {
        if (_bad.Count < MaxCounted)
        {
            _bad.Add(page);
        }

        _firstBad ??= PatchDiagnostic.Warning(
            KernelDiagnosticCodes.KdumpPagesDamaged, "pages of the compressed dump cannot be unpacked") with
        {
            FileOffset = _descriptorOffset + page * DescriptorSize,
            Found = what,
            Expected = "4096 bytes, or zlib, snappy or zstd data of as many",
            Help = "They count as missing; take the dump again.",
        };
        return false;
    }
}
