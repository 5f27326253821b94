using System.IO.Compression;
using ZstdSharp;

namespace PvPatch.Linux.Dumps;

/// <summary>Unpacks pages of compressed dumps, each a stream of its own. Not safe for several threads.</summary>
internal sealed class PageCompression : IDisposable
{
    // Flags of a page and of a dump (diskdump_mod.h of makedumpfile).
    public const uint Zlib = 0x1;
    public const uint Lzo = 0x2;
    public const uint Snappy = 0x4;
    public const uint Zstd = 0x20;

    private Decompressor? _zstd;

    /// <summary>Unpacks a page.</summary>
    /// <param name="flags">The page's flags: one compression.</param>
    /// <param name="packed">An array that starts with the packed bytes.</param>
    /// <param name="length">The number of packed bytes.</param>
    /// <param name="page">Gets the page, if that is what they unpack to: as many bytes, no more and no fewer.</param>
    /// <returns>What is wrong; <see langword="null"/> where nothing is.</returns>
    public string? Unpack(uint flags, byte[] packed, int length, Span<byte> page)
    {
        try
        {
            return flags switch
            {
                Zlib => IsZlib(packed, length, page) ? null : "zlib data of another length than a page",
                Snappy => IsSnappy(packed.AsSpan(0, length), page) ? null : "snappy data of another length than a page",
                Zstd => IsZstd(packed.AsSpan(0, length), page) ? null : "zstd data of another length than a page",
                Lzo => "lzo data, which is not read here",
                _ => "flags of no known compression",
            };
        }
        catch (Exception exception) when (exception is InvalidDataException or ZstdException or IOException or ArgumentException)
        {
            return $"damaged data: {exception.Message}";
        }
    }

    public void Dispose() => _zstd?.Dispose();

    private static bool IsZlib(byte[] packed, int length, Span<byte> page)
    {
        using var bytes = new MemoryStream(packed, 0, length, writable: false);
        using var stream = new ZLibStream(bytes, CompressionMode.Decompress);
        Span<byte> more = stackalloc byte[1];
        return stream.ReadAtLeast(page, page.Length, throwOnEndOfStream: false) == page.Length && stream.Read(more) == 0;
    }

    // The length stands in front; a lie about it is found when the bytes are made.
    private static bool IsSnappy(ReadOnlySpan<byte> packed, Span<byte> page) =>
        Snappier.Snappy.GetUncompressedLength(packed) == page.Length && Snappier.Snappy.Decompress(packed, page) == page.Length;

    private bool IsZstd(ReadOnlySpan<byte> packed, Span<byte> page)
    {
        _zstd ??= new Decompressor();
        return _zstd.TryUnwrap(packed, page, out int written) && written == page.Length;
    }
}
