using System.Buffers;
using System.Runtime.InteropServices;

namespace PvPatch.Tests.Support;

/// <summary>
/// Memory that ends where the process has none: whoever reads or writes behind its last byte ends the process. It can be made read-only, so
/// that a store to it does too. Linux only.
/// </summary>
internal sealed unsafe partial class GuardedMemory : MemoryManager<byte>
{
    private const int ProtNone = 0;
    private const int ProtRead = 1;
    private const int ProtWrite = 2;
    private const int MapPrivateAnonymous = 0x22;

    private readonly nuint _pages;
    private readonly int _length;
    private byte* _start;

    public GuardedMemory(int length)
    {
        var page = (nuint)Environment.SystemPageSize;
        _length = length;
        _pages = ((nuint)length + page - 1) / page * page;
        _start = MemoryMap(null, _pages + page, ProtRead | ProtWrite, MapPrivateAnonymous, -1, 0);
        if (_start == (byte*)-1 || MemoryProtect(_start + _pages, page, ProtNone) != 0)
        {
            throw new InvalidOperationException($"no guarded memory, errno {Marshal.GetLastPInvokeError()}");
        }
    }

    public static bool IsSupported => OperatingSystem.IsLinux();

    public void Protect(bool isReadOnly)
    {
        if (MemoryProtect(_start, _pages, isReadOnly ? ProtRead : ProtRead | ProtWrite) != 0)
        {
            throw new InvalidOperationException($"mprotect failed, errno {Marshal.GetLastPInvokeError()}");
        }
    }

    public override Span<byte> GetSpan() => new(_start + _pages - _length, _length);

    public override MemoryHandle Pin(int elementIndex = 0) => new(_start + _pages - _length + elementIndex);

    public override void Unpin()
    {
    }

    protected override void Dispose(bool disposing)
    {
        if (_start is not null)
        {
            _ = MemoryUnmap(_start, _pages + (nuint)Environment.SystemPageSize);
            _start = null;
        }
    }

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    private static partial byte* MemoryMap(byte* address, nuint length, int protection, int flags, int file, long offset);

    [LibraryImport("libc", EntryPoint = "mprotect", SetLastError = true)]
    private static partial int MemoryProtect(byte* address, nuint length, int protection);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    private static partial int MemoryUnmap(byte* address, nuint length);
}
