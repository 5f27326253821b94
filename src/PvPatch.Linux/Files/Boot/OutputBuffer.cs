using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// Buffer of unpacked bytes: one array of exactly the announced size, or, without an announced size, pieces that are joined at the end.
/// Neither ever takes more than the limit.
/// </summary>
internal sealed class OutputBuffer
{
    private const int FirstPiece = 1 << 20;
    private const int LargestPiece = 32 << 20;
    private const int ProgressStep = 1 << 20;

    private readonly List<byte[]> _full = [];
    private readonly long _limit;
    private readonly long? _announced;
    private readonly IProgress<long>? _progress;
    private byte[] _current;
    private int _used;
    private long _fullBytes;
    private long _reported;

    private OutputBuffer(long limit, long? announced, IProgress<long>? progress)
    {
        _limit = limit;
        _announced = announced;
        _progress = progress;
        _current = GC.AllocateUninitializedArray<byte>((int)(announced ?? Math.Min(limit, FirstPiece)));
    }

    /// <summary>The number of bytes written so far.</summary>
    public long Length => _fullBytes + _used;

    public static bool TryCreate(long? announced, long compressedLength, UnpackLimits options, [NotNullWhen(true)] out OutputBuffer? buffer,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        buffer = null;
        error = null;
        long limit = options.OutputLimit(compressedLength);
        if (announced == 0)
        {
            error = Mismatch("The compressed kernel says that it unpacks to nothing", "0 bytes", "the size of a kernel");
            return false;
        }

        if (announced > limit)
        {
            error = TooLarge($"The compressed kernel says that it unpacks to {announced} bytes", compressedLength, limit);
            return false;
        }

        buffer = new OutputBuffer(limit, announced, options.Progress);
        return true;
    }

    /// <summary>
    /// Room for at least one more byte, even behind the announced end; bytes written there are refused by <see cref="TryAdvance"/>.
    /// </summary>
    /// <param name="all">Whether all the room that there is is wanted at once, without progress in between.</param>
    public Memory<byte> GetRoom(bool all = false)
    {
        if (_used < _current.Length)
        {
            return _current.AsMemory(_used, all ? _current.Length - _used : Math.Min(_current.Length - _used, ProgressStep));
        }

        if (_announced is null && Length < _limit)
        {
            _full.Add(_current);
            _fullBytes += _used;
            _used = 0;
            long size = Math.Min(Math.Min(_current.Length * 2L, LargestPiece), _limit - _fullBytes);
            _current = GC.AllocateUninitializedArray<byte>((int)size);
            return _current.AsMemory(0, Math.Min(_current.Length, ProgressStep));
        }

        return new byte[1];
    }

    /// <summary>Takes the bytes written into the room; false where there are more than announced or allowed.</summary>
    public bool TryAdvance(int count, long compressedLength, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (count > _current.Length - _used)
        {
            error = _announced is long announced
                ? Mismatch("The compressed kernel unpacks to more bytes than it says", $"more than {announced} bytes", $"{announced} bytes")
                : TooLarge($"The compressed kernel unpacks to more than {_limit} bytes", compressedLength, _limit);
            return false;
        }

        _used += count;
        if (Length - _reported >= ProgressStep)
        {
            _reported = Length;
            _progress?.Report(_reported);
        }

        return true;
    }

    /// <summary>All bytes in one piece; false where there are fewer than announced.</summary>
    public bool TryFinish(out Memory<byte> bytes, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        bytes = default;
        error = null;
        if (_announced is long announced && Length != announced)
        {
            error = Mismatch("The compressed kernel unpacks to fewer bytes than it says", $"{Length} bytes", $"{announced} bytes");
            return false;
        }

        _progress?.Report(Length);
        bytes = _full.Count == 0 ? _current.AsMemory(0, _used) : Join();
        return true;
    }

    private byte[] Join()
    {
        byte[] joined = GC.AllocateUninitializedArray<byte>((int)Length);
        int at = 0;
        for (int i = 0; i < _full.Count; i++)
        {
            _full[i].CopyTo(joined, at);
            at += _full[i].Length;
            _full[i] = [];
        }

        _current.AsSpan(0, _used).CopyTo(joined.AsSpan(at));
        return joined;
    }

    private static PatchDiagnostic Mismatch(string message, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.PayloadSizeMismatch, message) with
        {
            Found = found,
            Expected = expected,
            Help = "The file is cut short or damaged; copy or download it again",
        };

    private static PatchDiagnostic TooLarge(string message, long compressedLength, long limit) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.PayloadTooLarge, message) with
        {
            Found = $"{compressedLength} compressed bytes",
            Expected = $"at most {limit} bytes",
            Help = $"If the file is a real kernel, raise {nameof(UnpackLimits.MaxImageSize)} or {nameof(UnpackLimits.MaxExpansion)}",
        };
}
