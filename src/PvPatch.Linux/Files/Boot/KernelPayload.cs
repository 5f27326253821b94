using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>The compressed kernel inside a bzImage: its compression, its stream and the size it says it unpacks to.</summary>
/// <remarks>
/// A gzip stream ends with the size of what it unpacks to. Behind every other stream the kernel's build appends the size as
/// four bytes, little-endian, which belong to the payload but not to the stream.
/// </remarks>
internal sealed class KernelPayload
{
    private const int SizeLength = 4;

    private KernelPayload(PayloadCompression compression, ReadOnlyMemory<byte> stream, uint unpackedSize)
    {
        Compression = compression;
        Stream = stream;
        UnpackedSize = unpackedSize;
    }

    /// <summary>The kernel's compression.</summary>
    public PayloadCompression Compression { get; }

    /// <summary>The compressed stream alone, not copied.</summary>
    public ReadOnlyMemory<byte> Stream { get; }

    /// <summary>The number of bytes it unpacks to, as the file says; nothing has checked it yet.</summary>
    public long UnpackedSize { get; }

    /// <summary>Takes a payload apart.</summary>
    /// <param name="payload">The payload, as from <see cref="BzImage.GetPayload"/>.</param>
    /// <param name="fileOffset">Where it starts in its file, in bytes, for messages.</param>
    /// <param name="result">Its parts.</param>
    /// <param name="error">What is wrong: code PV6033.</param>
    /// <returns>Whether its compression is known.</returns>
    public static bool TryRead(ReadOnlyMemory<byte> payload, long fileOffset, [NotNullWhen(true)] out KernelPayload? result,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (!CompressionFormat.TryDetect(payload.Span, out CompressionFormat? format) || payload.Length < 2 * SizeLength)
        {
            result = null;
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.PayloadUnknownCompression, "The kernel is compressed in an unknown way") with
            {
                FileOffset = fileOffset,
                Found = FileRange.FirstBytes(payload.Span),
                Expected = "the start of a gzip, xz, zstd, lz4, lzma, bzip2 or lzo stream",
                Help = "Unpack it by other means and give the vmlinux",
            };
            return false;
        }

        uint size = BinaryPrimitives.ReadUInt32LittleEndian(payload.Span[^SizeLength..]);
        ReadOnlyMemory<byte> stream = format.Compression == PayloadCompression.Gzip ? payload : payload[..^SizeLength];
        result = new KernelPayload(format.Compression, stream, size);
        error = null;
        return true;
    }
}
