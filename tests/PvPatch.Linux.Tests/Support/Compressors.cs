using PvPatch.Linux.Files;

namespace PvPatch.Linux.Tests.Support;

/// <summary>Compresses as the kernel's build does, through the programs it uses.</summary>
internal static class Compressors
{
    public static IReadOnlyList<PayloadCompression> Programs { get; } =
    [
        PayloadCompression.Xz, PayloadCompression.Zstd, PayloadCompression.Lz4, PayloadCompression.Lzma, PayloadCompression.Bzip2,
        PayloadCompression.Lzo,
    ];

    public static TheoryData<string> External => [.. Programs.Select(static p => p.ToString())];

    public static byte[] Compress(PayloadCompression compression, byte[] bytes) => compression switch
    {
        PayloadCompression.Xz => Tools.Pipe(bytes, "xz", "-c", "--check=crc32", "--x86", "--lzma2=dict=32MiB"),
        PayloadCompression.Zstd => Tools.Pipe(bytes, "zstd", "-cq", "-19"),
        PayloadCompression.Lz4 => Tools.Pipe(bytes, "lz4", "-lcq", "-9"),
        PayloadCompression.Lzma => Tools.Pipe(bytes, "xz", "-c", "--format=lzma", "-9"),
        PayloadCompression.Bzip2 => Tools.Pipe(bytes, "bzip2", "-c", "-9"),
        PayloadCompression.Lzo => Tools.Pipe(bytes, "lzop", "-c", "-9"),
        PayloadCompression.Gzip => TestBzImage.Gzip(bytes),
        _ => bytes,
    };
}
