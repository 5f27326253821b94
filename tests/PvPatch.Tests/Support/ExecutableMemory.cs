using System.Runtime.InteropServices;

namespace PvPatch.Tests.Support;

/// <summary>
/// Code to run in this process: mapped writable, filled, then made executable and read-only. Never both at once. Linux x86-64 only.
/// </summary>
internal sealed unsafe partial class ExecutableMemory : IDisposable
{
    private const int ProtRead = 1;
    private const int ProtWrite = 2;
    private const int ProtExec = 4;
    private const int MapPrivateAnonymous = 0x22;

    private readonly nuint _length;
    private byte* _start;

    private ExecutableMemory(byte* start, nuint length)
    {
        _start = start;
        _length = length;
    }

    public static bool IsSupported => OperatingSystem.IsLinux() && RuntimeInformation.ProcessArchitecture == Architecture.X64;

    /// <summary>Where the code runs.</summary>
    public ulong Address => (ulong)Start;

    private byte* Start => _start is null ? throw new ObjectDisposedException(nameof(ExecutableMemory)) : _start;

    /// <summary>Maps the code; it must end in a return.</summary>
    public static ExecutableMemory Create(ReadOnlySpan<byte> code)
    {
        ArgumentOutOfRangeException.ThrowIfZero(code.Length);
        var length = (nuint)code.Length;
        byte* start = MemoryMap(null, length, ProtRead | ProtWrite, MapPrivateAnonymous, -1, 0);
        if (start == (byte*)-1)
        {
            throw new InvalidOperationException($"mmap failed, errno {Marshal.GetLastPInvokeError()}");
        }

        var memory = new ExecutableMemory(start, length);
        code.CopyTo(new Span<byte>(start, code.Length));
        if (MemoryProtect(start, length, ProtRead | ProtExec) != 0)
        {
            int error = Marshal.GetLastPInvokeError();
            memory.Dispose();
            throw new InvalidOperationException($"mprotect failed, errno {error}");
        }

        return memory;
    }

    /// <summary>Calls the code by the System V convention (rdi, rsi, rdx, rcx) and gives what it leaves in rax.</summary>
    public ulong Invoke(ulong rdi = 0, ulong rsi = 0, ulong rdx = 0, ulong rcx = 0)
    {
        var function = (delegate* unmanaged[Cdecl]<ulong, ulong, ulong, ulong, ulong>)Start;
        return function(rdi, rsi, rdx, rcx);
    }

    public void Dispose()
    {
        if (_start is not null)
        {
            _ = MemoryUnmap(_start, _length);
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
