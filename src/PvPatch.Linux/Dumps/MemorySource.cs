using Microsoft.Win32.SafeHandles;

namespace PvPatch.Linux.Dumps;

/// <summary>Bytes read at random places: a file of any size, never read whole.</summary>
internal abstract class MemorySource : IDisposable
{
    /// <summary>The length in bytes; <see cref="long.MaxValue"/> where the system does not say (files of /proc).</summary>
    public abstract long Length { get; }

    /// <summary>What reads met so far that is there and of no use, as a warning; <see langword="null"/> where all was sound.</summary>
    public virtual PatchDiagnostic? Damage => null;

    /// <summary>Reads all of a range or says that it can't: beyond the end, not readable, gone meanwhile.</summary>
    public abstract bool TryRead(long offset, Span<byte> destination);

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing)
    {
    }
}

/// <summary>
/// A file read where asked. The file may be written by others, shrink, or refuse to be read in parts, as /proc/kcore does.
/// </summary>
internal sealed class FileMemorySource : MemorySource
{
    private readonly SafeFileHandle _handle;

    public FileMemorySource(string path)
    {
        if (Directory.Exists(path))
        {
            throw new IOException("it is a directory");
        }

        // FileStream says whether the file can be read at random; a pipe can't, and would be read from its start whatever the offset.
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        if (!stream.CanSeek)
        {
            throw new IOException("it is a pipe or a device and can't be read at random");
        }

        _handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, FileOptions.RandomAccess);
        long length = RandomAccess.GetLength(_handle);
        Length = length > 0 || !CanReadFirstByte() ? length : long.MaxValue;
    }

    public override long Length { get; }

    public override bool TryRead(long offset, Span<byte> destination)
    {
        try
        {
            while (!destination.IsEmpty)
            {
                int read = RandomAccess.Read(_handle, destination, offset);
                if (read <= 0)
                {
                    return false;
                }

                destination = destination[read..];
                offset += read;
            }

            return true;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return false; // A page that the system will not show. The rest of the file may be readable.
        }
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _handle.Dispose();
        }

        base.Dispose(disposing);
    }

    private bool CanReadFirstByte()
    {
        Span<byte> one = stackalloc byte[1];
        return TryRead(0, one);
    }
}
