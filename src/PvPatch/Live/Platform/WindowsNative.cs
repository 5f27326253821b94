using System.Runtime.InteropServices;

namespace PvPatch.Live.Platform;

/// <summary>Windows memory functions, Windows 10 version 1803 and later. Names and numbers are those of memoryapi.h and winnt.h.</summary>
internal static unsafe partial class WindowsNative
{
    public const uint PAGE_NOACCESS = 0x01;
    public const uint PAGE_READONLY = 0x02;
    public const uint PAGE_READWRITE = 0x04;
    public const uint PAGE_EXECUTE_READ = 0x20;
    public const uint PAGE_EXECUTE_READWRITE = 0x40;
    public const uint AnyExecute = 0xf0; // PAGE_EXECUTE to PAGE_EXECUTE_WRITECOPY

    public const uint MEM_COMMIT = 0x1000;
    public const uint MEM_RESERVE = 0x2000;
    public const uint MEM_REPLACE_PLACEHOLDER = 0x4000;
    public const uint MEM_RELEASE = 0x8000;
    public const uint MEM_RESERVE_PLACEHOLDER = 0x40000;
    public const uint SEC_RESERVE = 0x4000000;

    public const ulong MemExtendedParameterAddressRequirements = 1;

    [LibraryImport("kernel32", SetLastError = true)]
    public static partial nint CreateFileMappingW(nint file, void* security, uint protection, uint sizeHigh, uint sizeLow, void* name);

    [LibraryImport("kernelbase", SetLastError = true)]
    public static partial void* VirtualAlloc2(nint process, void* address, nuint size, uint type, uint protection, ExtendedParameter* parameters, uint count);

    [LibraryImport("kernelbase", SetLastError = true)]
    public static partial void* MapViewOfFile3(
        nint mapping, nint process, void* address, ulong offset, nuint size, uint type, uint protection, ExtendedParameter* parameters, uint count);

    [LibraryImport("kernel32", SetLastError = true)]
    public static partial void* VirtualAlloc(void* address, nuint size, uint type, uint protection);

    [LibraryImport("kernel32", SetLastError = true)]
    public static partial int VirtualFree(void* address, nuint size, uint type);

    [LibraryImport("kernel32", SetLastError = true)]
    public static partial int VirtualProtect(void* address, nuint size, uint protection, out uint old);

    [LibraryImport("kernel32", SetLastError = true)]
    public static partial int UnmapViewOfFile(void* address);

    [LibraryImport("kernel32", SetLastError = true)]
    public static partial int CloseHandle(nint handle);

    [LibraryImport("kernel32")]
    public static partial nuint VirtualQuery(void* address, MemoryInformation* information, nuint length);

    [LibraryImport("kernel32")]
    public static partial nint GetCurrentProcess();

    [LibraryImport("kernel32")]
    public static partial int FlushInstructionCache(nint process, void* address, nuint size);

    /// <summary>MEM_ADDRESS_REQUIREMENTS.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct AddressRequirements
    {
        public void* Lowest;
        public void* Highest;
        public nuint Alignment;
    }

    /// <summary>MEM_EXTENDED_PARAMETER.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct ExtendedParameter
    {
        public ulong Type;
        public void* Pointer;
    }

    /// <summary>MEMORY_BASIC_INFORMATION.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct MemoryInformation
    {
        public void* BaseAddress;
        public void* AllocationBase;
        public uint AllocationProtect;
        public ushort PartitionId;
        public nuint RegionSize;
        public uint State;
        public uint Protect;
        public uint Type;
    }
}
