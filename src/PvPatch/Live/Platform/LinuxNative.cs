using System.Runtime.InteropServices;

namespace PvPatch.Live.Platform;

/// <summary>libc, as far as it is needed. Names and numbers are those of the x86-64 kernel headers.</summary>
internal static unsafe partial class LinuxNative
{
    public const int PROT_NONE = 0;
    public const int PROT_READ = 1;
    public const int PROT_WRITE = 2;
    public const int PROT_EXEC = 4;

    public const int MAP_SHARED = 0x01;
    public const int MAP_PRIVATE = 0x02;
    public const int MAP_FIXED = 0x10;
    public const int MAP_ANONYMOUS = 0x20;
    public const int MAP_NORESERVE = 0x4000;
    public const int MAP_FIXED_NOREPLACE = 0x100000; // 4.17 and later; earlier kernels take the address as a wish

    public const int MADV_DONTFORK = 10;

    public const uint MFD_CLOEXEC = 1;
    public const uint MFD_EXEC = 0x10; // 6.3 and later; earlier kernels say EINVAL

    public const int SYS_membarrier = 324;
    public const int MEMBARRIER_CMD_QUERY = 0;
    public const int MEMBARRIER_CMD_PRIVATE_EXPEDITED = 8;
    public const int MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED = 16;
    public const int MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE = 32;
    public const int MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 64;

    public const int EEXIST = 17;
    public const int EINVAL = 22;

    public static readonly void* MAP_FAILED = (void*)-1;

    [LibraryImport("libc", SetLastError = true)]
    public static partial void* mmap(void* address, nuint length, int protection, int flags, int file, long offset);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int munmap(void* address, nuint length);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int madvise(void* address, nuint length, int advice);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int memfd_create(string name, uint flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ftruncate(int file, long length);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int close(int file);

    // libc has no wrapper for membarrier. syscall is variadic, which makes no difference to integer arguments on x86-64.
    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    public static partial long membarrier(long number, long command, long flags, long cpu);
}
