namespace PvPatch.Linux.Files;

/// <summary>Compression of a kernel.</summary>
internal enum PayloadCompression
{
    /// <summary>Not at all.</summary>
    None,

    /// <summary>gzip, unpacked in this process.</summary>
    Gzip,

    /// <summary>xz, unpacked by the program <c>xz</c>.</summary>
    Xz,

    /// <summary>Zstandard, unpacked by the program <c>zstd</c>.</summary>
    Zstd,

    /// <summary>LZ4 in its legacy frame format, unpacked by the program <c>lz4</c>.</summary>
    Lz4,

    /// <summary>LZMA as of the lzma utilities, unpacked by the program <c>xz</c>.</summary>
    Lzma,

    /// <summary>bzip2, unpacked by the program <c>bzip2</c>.</summary>
    Bzip2,

    /// <summary>LZO as of lzop, unpacked by the program <c>lzop</c>.</summary>
    Lzo,
}
