using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// Unpacks a compressed kernel: in this process, or, lzo, xz where its program is there, and whatever the caller asks for, through the
/// program of the system, by pipes and without a shell.
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

        bool complete = UsesProgram(format, announcedSize, options)
            ? ExternalDecompressor.TryRun(format, data, output, options, out error, cancellationToken)
            : StreamDecompressor.TryRun(format, data, output, options, out error, cancellationToken);
        return complete && output.TryFinish(out unpacked, out error);
    }

    // xz is 1.5 to 1.7 times as fast. The decoder within the process must be given room for all of the output at once
    // (see StreamDecompressor), so it needs the size.
    private static bool UsesProgram(CompressionFormat format, long? announcedSize, UnpackLimits options) => format.Compression switch
    {
        PayloadCompression.Gzip => false,
        PayloadCompression.Lzo => true,
        PayloadCompression.Xz => options.UsePrograms || announcedSize is null
            || ProgramFinder.TryFind(format.Program, options.ProgramSearchPath, out _),
        _ => options.UsePrograms,
    };
}
