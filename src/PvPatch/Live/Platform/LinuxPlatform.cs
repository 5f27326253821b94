using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;
using static PvPatch.Live.Platform.LinuxNative;

namespace PvPatch.Live.Platform;

/// <summary>Linux: memfd mapped twice, membarrier.</summary>
internal sealed unsafe class LinuxPlatform : LivePlatform
{
    // How often room is looked for while other threads map at the same places.
    private const int Attempts = 8;

    // As on Windows, so that an arena is as big on both.
    public override int Granularity => 1 << 16;

    public override bool TryReserve(MapRequest request, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = null;
        if (!TryReserveRunView(request, out byte* run, out error))
        {
            return false;
        }

        return request.WritableAndExecutable
            ? LinuxMapping.TryCreateSingle(run, request.Size, out mapping, out error)
            : LinuxMapping.TryCreateDual(run, request.Size, out mapping, out error);
    }

    public override BarrierKind PrepareBarrier()
    {
        // Registering waits for a grace period of the kernel's own (15 ms with several threads), once in a process.
        long commands = membarrier(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
        bool sync = commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) != 0;
        return sync
            && membarrier(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) == 0
            && TryBarrier(BarrierKind.SyncCore)
            ? BarrierKind.SyncCore
            : BarrierKind.Weak;
    }

    public override bool TryBarrier(BarrierKind kind)
    {
        switch (kind)
        {
            case BarrierKind.SyncCore:
                return membarrier(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) == 0;
            case BarrierKind.Weak:
                Interlocked.MemoryBarrierProcessWide();
                return true;
            default:
                return false;
        }
    }

    public override bool TryWriteBarrier(Assembler assembler, BarrierKind kind)
    {
        // The weak kind in machine code is the plain command, if the kernel has it and the process is registered for it.
        int command = kind == BarrierKind.SyncCore ? MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE : MEMBARRIER_CMD_PRIVATE_EXPEDITED;
        if (kind == BarrierKind.None
            || (kind == BarrierKind.Weak
                && (membarrier(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0
                    || membarrier(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)))
        {
            return false;
        }

        assembler.mov(eax, SYS_membarrier);
        assembler.mov(edi, command);
        assembler.xor(esi, esi);
        assembler.xor(edx, edx);
        assembler.syscall(); // destroys rcx and r11 too; eax is 0 or a negative error number
        assembler.ret();
        return true;
    }

    public override Predicate<VirtualAddress>? ExecutableTest()
    {
        List<AddressGaps.Mapping> mappings = ReadMappings();
        return mappings.Count == 0 ? null : address => mappings.Exists(m => m.Executable && address.Value >= m.Start && address.Value < m.End);
    }

    /// <summary>The finding for a call the system refused.</summary>
    /// <param name="what">What was asked for.</param>
    /// <param name="errorNumber"><c>errno</c>.</param>
    /// <param name="dualMapped">Whether it was two views of a memory file, one view that is both, or neither: plain address space.</param>
    internal static PatchDiagnostic Refused(string what, int errorNumber, bool? dualMapped = null) =>
        PatchDiagnostic.Error(DiagnosticCodes.ArenaRefused, $"the system refuses {what}") with
        {
            Found = $"error {errorNumber} ({Marshal.GetPInvokeErrorMessage(errorNumber)})",
            Help = dualMapped switch
            {
                true => "Memory files may not be executable here (vm.memfd_noexec, SELinux, a seccomp filter): then ArenaOptions.Protection = "
                    + "ArenaProtection.WritableAndExecutable does without one. Or a limit is reached (RLIMIT_AS, RLIMIT_NOFILE, vm.max_map_count).",
                false => "Memory that is writable and executable at once may be forbidden here (SELinux, a seccomp filter): leave ArenaOptions.Protection at "
                    + "ArenaProtection.DualMapped. Or a limit is reached (RLIMIT_AS, vm.max_map_count).",
                null => "A limit is reached (RLIMIT_AS, vm.max_map_count): reserve fewer bytes.",
            },
        };

    private static bool TryReserveRunView(MapRequest request, out byte* run, out PatchDiagnostic? error)
    {
        const int Flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        error = null;
        run = null;
        if (request.Near is not VirtualAddress near)
        {
            void* anywhere = mmap(null, (nuint)request.Size, PROT_NONE, Flags, -1, 0);
            run = anywhere == MAP_FAILED ? null : (byte*)anywhere;
            error = run is null ? Refused("address space for an arena", Marshal.GetLastPInvokeError(), dualMapped: null) : null;
            return error is null;
        }

        // Another thread may map at a place between the list and the call: then the next place, and then a new list.
        bool taken = true;
        for (int attempt = 0; taken && attempt < Attempts; attempt++)
        {
            taken = false;
            foreach (ulong place in PlacesNear(near, request))
            {
                void* got = mmap((void*)place, (nuint)request.Size, PROT_NONE, Flags | MAP_FIXED_NOREPLACE, -1, 0);
                if (got == (void*)place)
                {
                    run = (byte*)got;
                    return true;
                }

                taken = true;
                if (got != MAP_FAILED)
                {
                    _ = munmap(got, (nuint)request.Size);
                }
            }
        }

        error = PatchDiagnostic.Error(DiagnosticCodes.ArenaOutOfReach, $"there are no {request.Size} free bytes {(request.MustReach ? "within 2 GiB" : "in the address space")}") with
        {
            Address = near,
            Help = "Ask for fewer bytes, reserve earlier, or do without ArenaOptions.MustReach: sites then call what is far away through their slots.",
        };
        return false;
    }

    private static List<ulong> PlacesNear(VirtualAddress near, MapRequest request) =>
        AddressGaps.Candidates(ReadMappings(), near.Value, (ulong)request.Size, 1 << 16, request.MustReach ? AddressGaps.Near : AddressGaps.Far);

    private static List<AddressGaps.Mapping> ReadMappings()
    {
        try
        {
            return AddressGaps.Parse(File.ReadLines("/proc/self/maps"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return []; // no proc here: every place is then tried blindly, and MAP_FIXED_NOREPLACE says no where something is
        }
    }
}
