using System.Buffers;
using System.Runtime.InteropServices;

namespace PvPatch.Tests.Support;

/// <summary>
/// Bytes with a page behind and one before them that can't be read: code that reads or writes a byte too far ends the process. Linux only.
/// </summary>
internal sealed unsafe partial class GuardedMemory : MemoryManager<byte>
{
    private const int Page = 4096;
    private const int ProtNone = 0;
    private const int ProtRead = 1;
    private const int ProtReadWrite = 3;
    private const int MapPrivateAnonymous = 0x22;

    private readonly byte* _all;
    private readonly nuint _mapped;
    private readonly byte* _start;
    private readonly int _length;

    /// <param name="length">Bytes.</param>
    /// <param name="toTheEnd">Whether their last byte is the last of a page, else their first byte is the first of one.</param>
    public GuardedMemory(int length, bool toTheEnd)
    {
        Require.Tool(OperatingSystem.IsLinux(), "mprotect", "libc6");
        _length = length;
        nuint usable = (nuint)((length + Page - 1) & ~(Page - 1));
        _mapped = usable + (2 * Page);
        _all = MemoryMap(null, _mapped, ProtNone, MapPrivateAnonymous, -1, 0);
        if (_all == (byte*)-1 || MemoryProtect(_all + Page, usable, ProtReadWrite) != 0)
        {
            throw new InvalidOperationException($"no memory, errno {Marshal.GetLastPInvokeError()}");
        }

        _start = toTheEnd ? _all + Page + usable - length : _all + Page;
    }

    /// <summary>Makes a store to it end the process too, or not.</summary>
    public void Protect(bool isReadOnly)
    {
        if (MemoryProtect(_all + Page, _mapped - (2 * Page), isReadOnly ? ProtRead : ProtReadWrite) != 0)
        {
            throw new InvalidOperationException($"mprotect failed, errno {Marshal.GetLastPInvokeError()}");
        }
    }

    public override Span<byte> GetSpan() => new(_start, _length);

    public override MemoryHandle Pin(int elementIndex = 0) => new(_start + elementIndex);

    public override void Unpin()
    {
    }

    protected override void Dispose(bool disposing) => _ = MemoryUnmap(_all, _mapped);

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial byte* MemoryMap(byte* address, nuint length, int protection, int flags, int file, long offset);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    private static partial int MemoryProtect(byte* address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int MemoryUnmap(byte* address, nuint length);
}
