using System.Diagnostics.CodeAnalysis;
using System.IO.Compression;
using System.Runtime.InteropServices;

namespace PvPatch.Linux.Files;

/// <summary>
/// Unpacks a compressed kernel: gzip in this process, every other compression through the program of the system, by pipes and
/// without a shell.
/// </summary>
internal static class PayloadDecompressor
{
    /// <summary>The compression whose magic number some data starts with.</summary>
    /// <param name="data">The start of the data; six bytes are enough.</param>
    /// <returns>The compression, <see cref="PayloadCompression.None"/> where there is no known magic number.</returns>
    public static PayloadCompression Detect(ReadOnlySpan<byte> data) =>
        CompressionFormat.TryDetect(data, out CompressionFormat? format) ? format.Compression : PayloadCompression.None;

    /// <summary>Unpacks compressed data.</summary>
    /// <param name="data">One compressed stream, without anything behind it.</param>
    /// <param name="compression">How it is compressed; not <see cref="PayloadCompression.None"/>.</param>
    /// <param name="announcedSize">The number of bytes it must unpack to, <see langword="null"/> where that is not known.</param>
    /// <param name="options">The limits; <see langword="null"/> for the defaults.</param>
    /// <param name="unpacked">The unpacked bytes.</param>
    /// <param name="error">What is wrong: codes PV6034 to PV6039.</param>
    /// <param name="cancellationToken">Stops the work; a program that runs is killed.</param>
    /// <returns>Whether the data was unpacked.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryDecompress(
        ReadOnlyMemory<byte> data,
        PayloadCompression compression,
        long? announcedSize,
        UnpackLimits? options,
        out Memory<byte> unpacked,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellationToken = default)
    {
        CompressionFormat format = CompressionFormat.Of(compression);
        options ??= UnpackLimits.Default;
        unpacked = default;
        if (!OutputBuffer.TryCreate(announcedSize, data.Length, options, out OutputBuffer? output, out error))
        {
            return false;
        }

        bool complete = compression == PayloadCompression.Gzip
            ? TryGunzip(data, output, out error, cancellationToken)
            : ExternalDecompressor.TryRun(format, data, output, options, out error, cancellationToken);
        return complete && output.TryFinish(out unpacked, out error);
    }

    private static bool TryGunzip(ReadOnlyMemory<byte> data, OutputBuffer output, [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellationToken)
    {
        // Memory that is no array (a mapped file) is copied: GZipStream reads streams only, and compressed kernels are small.
        ArraySegment<byte> array = MemoryMarshal.TryGetArray(data, out ArraySegment<byte> segment) ? segment : data.ToArray();
        using var compressed = new MemoryStream(array.Array!, array.Offset, array.Count, writable: false);
        using var gzip = new GZipStream(compressed, CompressionMode.Decompress);
        try
        {
            while (true)
            {
                cancellationToken.ThrowIfCancellationRequested();
                int count = gzip.Read(output.GetRoom().Span);
                if (count == 0)
                {
                    error = null;
                    return true;
                }

                if (!output.TryAdvance(count, data.Length, out error))
                {
                    return false;
                }
            }
        }
        catch (Exception exception) when (exception is InvalidDataException or IOException)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.PayloadCorrupt, "The compressed kernel is damaged: it is not a whole gzip stream") with
            {
                Found = exception.Message,
                Help = "Copy or download the file again",
            };
            return false;
        }
    }
}
