using System.Diagnostics.CodeAnalysis;
using Microsoft.Win32.SafeHandles;

namespace PvPatch.Linux.Files;

/// <summary>Reads whole files and streams into memory, once and without growing where the length is known.</summary>
internal static class KernelFileReader
{
    // Enough to recognise every kind of kernel file, so that the rest of a stream that is none is never read.
    private const int RecognizeLength = 4096;

    public static bool TryReadFile(string path, UnpackLimits options, out Memory<byte> file,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        file = default;
        if (Directory.Exists(path))
        {
            error = Unreadable("it is a directory") with { Expected = "a file", Help = "Give the file in it: vmlinux or vmlinuz" };
            return false;
        }

        try
        {
            using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
            return stream.CanSeek
                ? TryReadSeekable(stream.SafeFileHandle, stream.Length, out file, out error, cancellationToken)
                : TryReadStream(stream, options, out file, out error, cancellationToken);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            error = Unreadable(exception.Message);
            return false;
        }
    }

    public static bool TryReadStream(Stream stream, UnpackLimits options, out Memory<byte> file,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        try
        {
            return TryReadToEnd(stream, options, out file, out error, cancellationToken);
        }
        catch (IOException exception)
        {
            file = default;
            error = Unreadable(exception.Message);
            return false;
        }
    }

    private static bool TryReadToEnd(Stream stream, UnpackLimits options, out Memory<byte> file,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        file = default;

        // A compressed length of MaxImageSize and a ratio of 1 make the limit MaxImageSize itself; progress is told of unpacking only.
        var limits = new UnpackLimits { MaxImageSize = options.MaxImageSize, MaxExpansion = 1 };
        if (!OutputBuffer.TryCreate(null, options.MaxImageSize, limits, out OutputBuffer? buffer, out error))
        {
            return false;
        }

        byte[] start = new byte[RecognizeLength];
        int started = stream.ReadAtLeast(start, start.Length, throwOnEndOfStream: false);
        if (!KernelFile.TryRecognize(start.AsSpan(0, started), out _, out error))
        {
            return false;
        }

        int taken = 0;
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Span<byte> room = buffer.GetRoom().Span;
            int count = taken < started ? Math.Min(started - taken, room.Length) : stream.Read(room);
            if (taken < started)
            {
                start.AsSpan(taken, count).CopyTo(room);
                taken += count;
            }

            if (count == 0)
            {
                return buffer.TryFinish(out file, out error);
            }

            if (!buffer.TryAdvance(count, options.MaxImageSize, out _))
            {
                error = TooLarge($"more than {options.MaxImageSize} bytes", options.MaxImageSize);
                return false;
            }
        }
    }

    private static bool TryReadSeekable(SafeFileHandle handle, long length, out Memory<byte> file,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        const int Step = 16 << 20;
        file = default;
        if (length > Array.MaxLength)
        {
            error = TooLarge($"{length} bytes", Array.MaxLength);
            return false;
        }

        byte[] start = new byte[Math.Min(length, RecognizeLength)];
        int started = RandomAccess.Read(handle, start, 0);
        if (!KernelFile.TryRecognize(start.AsSpan(0, started), out _, out error))
        {
            return false;
        }

        byte[] bytes = GC.AllocateUninitializedArray<byte>((int)length);
        int at = 0;
        while (at < bytes.Length)
        {
            cancellationToken.ThrowIfCancellationRequested();
            int count = RandomAccess.Read(handle, bytes.AsSpan(at, Math.Min(Step, bytes.Length - at)), at);
            if (count == 0)
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.FileUnreadable, "The file became shorter while it was read") with
                {
                    FileOffset = at,
                    Expected = $"{length} bytes",
                    Help = "Wait until nothing writes it any more",
                };
                return false;
            }

            at += count;
        }

        file = bytes;
        return true;
    }

    private static PatchDiagnostic Unreadable(string found) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.FileUnreadable, "The file cannot be read") with
        {
            Found = found,
            Help = "Check the path and the permissions",
        };

    private static PatchDiagnostic TooLarge(string found, long limit) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.FileTooLarge, "The file is too large") with
        {
            Found = found,
            Expected = $"at most {limit} bytes",
            Help = "Strip its debug information (strip --strip-debug) and give that file",
        };
}
