using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Live.Platform;

/// <summary>
/// Windows: a section backed by the page file, mapped twice (the run view replaces a placeholder: a base address and address requirements
/// can't be given together, so the place is reserved first; the write view lies anywhere); FlushProcessWriteBuffers. Written from the
/// documentation; not run in this project's own builds.
/// </summary>
internal sealed unsafe partial class WindowsPlatform : LivePlatform
{
    private const ulong Reach = (1UL << 31) - (1 << 16);

    // dwAllocationGranularity, the same on every Windows.
    public override int Granularity => 1 << 16;

    public override bool TryReserve(
        VirtualAddress? near, long size, ArenaOptions options, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = null;
        error = null;
        bool single = options.Protection == ArenaProtection.WritableAndExecutable;
        void* run = ReserveRunView(near, size, placeholder: !single);
        if (run is null && near is not null && !options.MustReach)
        {
            run = ReserveRunView(null, size, placeholder: !single);
        }

        if (run is null)
        {
            error = near is null ? Refused("address space for an arena") : Refused("address space in reach") with { Address = near };
            return false;
        }

        if (single)
        {
            mapping = new CodeMapping(run, run, size, 0, Release);
            return true;
        }

        nint section = CreateFileMappingW(-1, null, PAGE_EXECUTE_READWRITE | SEC_RESERVE, (uint)(size >> 32), (uint)size, null);
        if (section == 0)
        {
            error = Refused("a section with executable pages");
            _ = VirtualFree(run, 0, MEM_RELEASE);
            return false;
        }

        if (MapViewOfFile3(section, 0, run, 0, (nuint)size, MEM_REPLACE_PLACEHOLDER, PAGE_EXECUTE_READ, null, 0) is null)
        {
            error = Refused("the run view of an arena");
            _ = VirtualFree(run, 0, MEM_RELEASE);
            _ = CloseHandle(section);
            return false;
        }

        void* write = MapViewOfFile3(section, 0, null, 0, (nuint)size, 0, PAGE_READWRITE, null, 0);
        if (write is null)
        {
            error = Refused("the write view of an arena");
            _ = UnmapViewOfFile(run);
            _ = CloseHandle(section);
            return false;
        }

        mapping = new CodeMapping(run, write, size, section, Release);
        return true;
    }

    public override bool TryCommit(CodeMapping mapping, long offset, long length, bool executable, out PatchDiagnostic? error)
    {
        error = null;
        uint protection = executable ? PAGE_EXECUTE_READ : PAGE_READONLY;
        if (mapping.Section == 0)
        {
            protection = executable ? PAGE_EXECUTE_READWRITE : PAGE_READWRITE;
        }

        // Committing pages of a SEC_RESERVE section through one view commits them for all; each view has its own protection.
        if (VirtualAlloc((byte*)mapping.Run.Value + offset, (nuint)length, MEM_COMMIT, protection) is null
            || (mapping.Section != 0 && VirtualAlloc(mapping.Write + offset, (nuint)length, MEM_COMMIT, PAGE_READWRITE) is null)
            || VirtualProtect((byte*)mapping.Run.Value + offset, (nuint)length, protection, out _) == 0)
        {
            error = Refused("executable memory");
        }

        return error is null;
    }

    // FlushProcessWriteBuffers is documented to interrupt every processor that runs the process, not to serialize it.
    public override BarrierKind PrepareBarrier() => BarrierKind.Weak;

    public override bool TryBarrier(BarrierKind kind)
    {
        if (kind == BarrierKind.None)
        {
            return false;
        }

        Interlocked.MemoryBarrierProcessWide();
        _ = FlushInstructionCache(GetCurrentProcess(), null, 0);
        return true;
    }

    public override bool TryWriteBarrier(Assembler assembler, BarrierKind kind)
    {
        if (kind == BarrierKind.None
            || !NativeLibrary.TryLoad("kernel32", out nint library)
            || !NativeLibrary.TryGetExport(library, "FlushProcessWriteBuffers", out nint flush))
        {
            return false;
        }

        assembler.sub(rsp, 40); // 32 bytes that belong to the callee, and alignment
        assembler.mov(rax, (ulong)flush);
        assembler.call(rax);
        assembler.add(rsp, 40);
        assembler.xor(eax, eax); // the function gives nothing back and can't fail
        assembler.ret();
        return true;
    }

    public override Predicate<VirtualAddress>? ExecutableTest() => IsExecutable;

    internal static PatchDiagnostic Refused(string what)
    {
        int number = Marshal.GetLastPInvokeError();
        return PatchDiagnostic.Error(DiagnosticCodes.ArenaRefused, $"the system refuses {what}") with
        {
            Found = $"error {number} ({Marshal.GetPInvokeErrorMessage(number)})",
            Help =
                "Processes with arbitrary code guard (ProhibitDynamicCode) may not have executable memory, whatever "
                + "ArenaOptions.Protection is. "
                + "Where only sections are refused, ArenaProtection.WritableAndExecutable does without one.",
        };
    }

    private static void Release(CodeMapping mapping, bool withCode)
    {
        if (withCode)
        {
            void* run = (void*)mapping.Run.Value;
            _ = mapping.Section == 0 ? VirtualFree(run, 0, MEM_RELEASE) : UnmapViewOfFile(run);
        }

        if (mapping.Section != 0)
        {
            _ = UnmapViewOfFile(mapping.Write);
            _ = CloseHandle(mapping.Section);
        }
    }

    private static void* ReserveRunView(VirtualAddress? wish, long size, bool placeholder)
    {
        var requirements = default(AddressRequirements);
        uint count = 0;
        if (wish is VirtualAddress near)
        {
            ulong low = near.Value > Reach ? near.Value - Reach : 1 << 16;
            ulong high = Math.Min(near.Value + Reach, 0x7fff_ffff_0000);
            requirements.Lowest = (void*)(low + 0xffff & ~0xffffUL);
            requirements.Highest = (void*)((high & ~0xffffUL) - 1); // inclusive, one below a multiple of the granularity
            count = 1;
        }

        var parameter = new ExtendedParameter { Type = MemExtendedParameterAddressRequirements, Pointer = &requirements };
        uint type = placeholder ? MEM_RESERVE | MEM_RESERVE_PLACEHOLDER : MEM_RESERVE;
        return VirtualAlloc2(0, null, (nuint)size, type, PAGE_NOACCESS, count == 0 ? null : &parameter, count);
    }

    private static bool IsExecutable(VirtualAddress address)
    {
        MemoryInformation information;
        return VirtualQuery((void*)address.Value, &information, (nuint)sizeof(MemoryInformation)) != 0
            && information.State == MEM_COMMIT && (information.Protect & AnyExecute) != 0;
    }

    // Memory functions of Windows 10 version 1803 and later. Names and numbers are those of memoryapi.h and winnt.h.
    private const uint PAGE_NOACCESS = 0x01;
    private const uint PAGE_READONLY = 0x02;
    private const uint PAGE_READWRITE = 0x04;
    private const uint PAGE_EXECUTE_READ = 0x20;
    private const uint PAGE_EXECUTE_READWRITE = 0x40;
    private const uint AnyExecute = 0xf0; // PAGE_EXECUTE to PAGE_EXECUTE_WRITECOPY

    private const uint MEM_COMMIT = 0x1000;
    private const uint MEM_RESERVE = 0x2000;
    private const uint MEM_REPLACE_PLACEHOLDER = 0x4000;
    private const uint MEM_RELEASE = 0x8000;
    private const uint MEM_RESERVE_PLACEHOLDER = 0x40000;
    private const uint SEC_RESERVE = 0x4000000;

    private const ulong MemExtendedParameterAddressRequirements = 1;

    [LibraryImport("kernel32", SetLastError = true)]
    private static partial nint CreateFileMappingW(nint file, void* security, uint protection, uint sizeHigh, uint sizeLow, void* name);

    [LibraryImport("kernelbase", SetLastError = true)]
    private static partial void* VirtualAlloc2(
        nint process, void* address, nuint size, uint type, uint protection, ExtendedParameter* parameters, uint count);

    [LibraryImport("kernelbase", SetLastError = true)]
    private static partial void* MapViewOfFile3(
        nint mapping, nint process, void* address, ulong offset, nuint size, uint type, uint protection, ExtendedParameter* parameters,
        uint count);

    [LibraryImport("kernel32", SetLastError = true)]
    private static partial void* VirtualAlloc(void* address, nuint size, uint type, uint protection);

    [LibraryImport("kernel32", SetLastError = true)]
    private static partial int VirtualFree(void* address, nuint size, uint type);

    [LibraryImport("kernel32", SetLastError = true)]
    private static partial int VirtualProtect(void* address, nuint size, uint protection, out uint old);

    [LibraryImport("kernel32", SetLastError = true)]
    private static partial int UnmapViewOfFile(void* address);

    [LibraryImport("kernel32", SetLastError = true)]
    private static partial int CloseHandle(nint handle);

    [LibraryImport("kernel32")]
    private static partial nuint VirtualQuery(void* address, MemoryInformation* information, nuint length);

    [LibraryImport("kernel32")]
    private static partial nint GetCurrentProcess();

    [LibraryImport("kernel32")]
    private static partial int FlushInstructionCache(nint process, void* address, nuint size);

    /// <summary>MEM_ADDRESS_REQUIREMENTS.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct AddressRequirements
    {
        public void* Lowest;
        public void* Highest;
        public nuint Alignment;
    }

    /// <summary>MEM_EXTENDED_PARAMETER.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct ExtendedParameter
    {
        public ulong Type;
        public void* Pointer;
    }

    /// <summary>MEMORY_BASIC_INFORMATION.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MemoryInformation
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
