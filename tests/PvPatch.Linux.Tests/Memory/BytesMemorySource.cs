using PvPatch.Linux.Dumps;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>A memory file in memory, that says how much was read of it.</summary>
internal sealed class BytesMemorySource(byte[] bytes) : MemorySource
{
    public override long Length => bytes.Length;

    public long BytesRead { get; private set; }

    public bool IsDisposed { get; private set; }

    public override bool TryRead(long offset, Span<byte> destination)
    {
        Assert.True(offset >= 0, "a reader never asks for a negative offset");
        if (offset > bytes.Length || destination.Length > bytes.Length - offset)
        {
            return false;
        }

        bytes.AsSpan((int)offset, destination.Length).CopyTo(destination);
        BytesRead += destination.Length;
        return true;
    }

    protected override void Dispose(bool disposing)
    {
        IsDisposed = true;
        base.Dispose(disposing);
    }
}
