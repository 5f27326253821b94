using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>Facts of one compression: its magic number, and the program and Debian package that unpack it.</summary>
internal sealed class CompressionFormat
{
    // xz and zstd take the window size from the file; kernels use 128 MiB at most, so a file that asks for more is refused
    // by the program itself before it has taken the memory.
    private static readonly CompressionFormat[] s_all =
    [
        new(PayloadCompression.Gzip, [0x1f, 0x8b], "gzip", "gzip", []),
        new(PayloadCompression.Xz, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], "xz", "xz-utils",
            ["-dcq", "--format=xz", "--threads=1", "--memlimit-decompress=256MiB"]),
        new(PayloadCompression.Zstd, [0x28, 0xb5, 0x2f, 0xfd], "zstd", "zstd", ["-dcq", "--memory=256MB"]),
        new(PayloadCompression.Lz4, [0x02, 0x21, 0x4c, 0x18], "lz4", "lz4", ["-dcq"]),
        new(PayloadCompression.Lzma, [0x5d, 0x00, 0x00], "xz", "xz-utils",
            ["-dcq", "--format=lzma", "--threads=1", "--memlimit-decompress=256MiB"]),
        new(PayloadCompression.Bzip2, [0x42, 0x5a, 0x68], "bzip2", "bzip2", ["-dcq"]),
        new(PayloadCompression.Lzo, [0x89, 0x4c, 0x5a, 0x4f], "lzop", "lzop", ["-dcq"]),
    ];

    private CompressionFormat(PayloadCompression compression, byte[] magic, string program, string package, string[] arguments)
    {
        Compression = compression;
        Magic = magic;
        Program = program;
        Package = package;
        Arguments = arguments;
    }

    public PayloadCompression Compression { get; }

    public string Program { get; }

    public string Package { get; }

    public IReadOnlyList<string> Arguments { get; }

    private byte[] Magic { get; }

    /// <summary>The format whose magic number the data starts with.</summary>
    public static bool TryDetect(ReadOnlySpan<byte> data, [NotNullWhen(true)] out CompressionFormat? format)
    {
        foreach (CompressionFormat candidate in s_all)
        {
            if (data.StartsWith(candidate.Magic))
            {
                format = candidate;
                return true;
            }
        }

        format = null;
        return false;
    }

    /// <summary>The format of a compression; there is none for <see cref="PayloadCompression.None"/>.</summary>
    public static CompressionFormat Of(PayloadCompression compression) =>
        Array.Find(s_all, f => f.Compression == compression)
        ?? throw new ArgumentOutOfRangeException(nameof(compression), compression, "There is nothing to unpack");
}
