using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Live.Platform;

/// <summary>
/// Linux: a memfd with a read-execute view and a read-write view, the scheme .NET's own W^X uses, or where asked for private pages that are
/// both; membarrier.
/// </summary>
internal sealed unsafe partial class LinuxPlatform : LivePlatform
{
    private const int NoFile = -1;

    // How often room is looked for while other threads map at the same places.
    private const int Attempts = 8;

    // As on Windows, so that an arena is as big on both.
    public override int Granularity => 1 << 16;

    // The kernel says so where it has turned FSGSBASE on (5.9 and later). fs is the thread's own; user code has no use for gs.
    public override bool CanSetGsBase { get; } = ((long)getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;

    public override bool TryReserve(
        VirtualAddress? near, long size, ArenaOptions options, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = null;
        if (!TryReserveRunView(near, size, options.MustReach, out void* run, out error))
        {
            return false;
        }

        if (options.Protection == ArenaProtection.WritableAndExecutable)
        {
            mapping = new CodeMapping(run, run, size, NoFile, Release);
            return true;
        }

        int file = memfd_create("pvpatch", MFD_CLOEXEC | MFD_EXEC);
        if (file < 0 && Marshal.GetLastPInvokeError() == EINVAL)
        {
            file = memfd_create("pvpatch", MFD_CLOEXEC);
        }

        if (file < 0)
        {
            error = Refused("a memory file (memfd_create)", Marshal.GetLastPInvokeError(), dualMapped: true);
            _ = munmap(run, (nuint)size);
            return false;
        }

        void* write = ftruncate(file, size) == 0
            ? mmap(null, (nuint)size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
        if (write == MAP_FAILED)
        {
            error = Refused("the write view of an arena", Marshal.GetLastPInvokeError(), dualMapped: true);
            _ = close(file);
            _ = munmap(run, (nuint)size);
            return false;
        }

        mapping = new CodeMapping(run, write, size, file, Release);
        return true;
    }

    public override bool TryCommit(CodeMapping mapping, long offset, long length, bool executable, out PatchDiagnostic? error)
    {
        void* run = (byte*)mapping.Run.Value + offset;
        int file = (int)mapping.Section;
        if (file == NoFile)
        {
            int both = PROT_READ | PROT_WRITE | (executable ? PROT_EXEC : 0);
            return Check(mmap(run, (nuint)length, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), "writable and executable memory",
                dualMapped: false, out error);
        }

        int protection = PROT_READ | (executable ? PROT_EXEC : 0);
        if (!Check(
            mmap(run, (nuint)length, protection, MAP_SHARED | MAP_FIXED, file, offset), "executable memory", dualMapped: true, out error))
        {
            return false;
        }

        void* write = mapping.Write + offset;
        if (!Check(mmap(write, (nuint)length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, offset),
            "the write view of executable memory", dualMapped: true, out error))
        {
            // The run view alone does no harm: it is zeros that nobody enters, and the next commit lays the same pages over it.
            return false;
        }

        // Shared pages stay shared with a child until it executes another program; it has no use for them.
        _ = madvise(run, (nuint)length, MADV_DONTFORK);
        _ = madvise(write, (nuint)length, MADV_DONTFORK);
        return true;
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
        return mappings.Count == 0 ? null : address =>
            mappings.Exists(m => m.Executable && address.Value >= m.Start && address.Value < m.End);
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
                true =>
                    "Memory files may not be executable here (vm.memfd_noexec, SELinux, a seccomp filter): then ArenaOptions.Protection = "
                    + "ArenaProtection.WritableAndExecutable does without one. Or a limit is reached (RLIMIT_AS, RLIMIT_NOFILE, "
                        + "vm.max_map_count).",
                false =>
                    "Memory that is writable and executable at once may be forbidden here (SELinux, a seccomp filter): leave "
                    + "ArenaOptions.Protection at "
                    + "ArenaProtection.DualMapped. Or a limit is reached (RLIMIT_AS, vm.max_map_count).",
                null => "A limit is reached (RLIMIT_AS, vm.max_map_count): reserve fewer bytes.",
            },
        };

    private static void Release(CodeMapping mapping, bool withCode)
    {
        if (withCode)
        {
            _ = munmap((void*)mapping.Run.Value, (nuint)mapping.Size);
        }

        if (mapping.Section != NoFile)
        {
            _ = munmap(mapping.Write, (nuint)mapping.Size);
            _ = close((int)mapping.Section);
        }
    }

    private static bool Check(void* result, string what, bool dualMapped, out PatchDiagnostic? error)
    {
        error = result == MAP_FAILED ? Refused(what, Marshal.GetLastPInvokeError(), dualMapped) : null;
        return error is null;
    }

    private static bool TryReserveRunView(VirtualAddress? wish, long size, bool mustReach, out void* run, out PatchDiagnostic? error)
    {
        const int Flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        error = null;
        run = null;
        if (wish is not VirtualAddress near)
        {
            run = mmap(null, (nuint)size, PROT_NONE, Flags, -1, 0);
            error = run == MAP_FAILED ? Refused("address space for an arena", Marshal.GetLastPInvokeError(), dualMapped: null) : null;
            return error is null;
        }

        // Another thread may map at a place between the list and the call: then the next place, and then a new list.
        bool taken = true;
        for (int attempt = 0; taken && attempt < Attempts; attempt++)
        {
            taken = false;
            foreach (ulong place in PlacesNear(near, size, mustReach))
            {
                void* got = mmap((void*)place, (nuint)size, PROT_NONE, Flags | MAP_FIXED_NOREPLACE, -1, 0);
                if (got == (void*)place)
                {
                    run = got;
                    return true;
                }

                taken = true;
                if (got != MAP_FAILED)
                {
                    _ = munmap(got, (nuint)size);
                }
            }
        }

        error = PatchDiagnostic.Error(
            DiagnosticCodes.ArenaOutOfReach, $"there are no {size} free bytes {(mustReach ? "within 2 GiB" : "in the address space")}") with
        {
            Address = near,
            Help =
                "Ask for fewer bytes, reserve earlier, or do without ArenaOptions.MustReach: sites then call what is far away through "
                + "their slots.",
        };
        return false;
    }

    private static List<ulong> PlacesNear(VirtualAddress near, long size, bool mustReach) =>
        AddressGaps.Candidates(ReadMappings(), near.Value, (ulong)size, 1 << 16, mustReach ? AddressGaps.Near : AddressGaps.Far);

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

    // libc, as far as it is needed. Names and numbers are those of the x86-64 kernel headers.
    private const int PROT_NONE = 0;
    private const int PROT_READ = 1;
    private const int PROT_WRITE = 2;
    private const int PROT_EXEC = 4;

    private const int MAP_SHARED = 0x01;
    private const int MAP_PRIVATE = 0x02;
    private const int MAP_FIXED = 0x10;
    private const int MAP_ANONYMOUS = 0x20;
    private const int MAP_NORESERVE = 0x4000;
    private const int MAP_FIXED_NOREPLACE = 0x100000; // 4.17 and later; earlier kernels take the address as a wish

    private const int MADV_DONTFORK = 10;

    private const uint MFD_CLOEXEC = 1;
    private const uint MFD_EXEC = 0x10; // 6.3 and later; earlier kernels say EINVAL

    private const int SYS_membarrier = 324;
    private const int MEMBARRIER_CMD_QUERY = 0;
    private const int MEMBARRIER_CMD_PRIVATE_EXPEDITED = 8;
    private const int MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED = 16;
    private const int MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE = 32;
    private const int MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 64;

    private const nuint AT_HWCAP2 = 26;
    private const long HWCAP2_FSGSBASE = 2;

    private const int EEXIST = 17;
    private const int EINVAL = 22;

    private static void* MAP_FAILED => (void*)-1;

    [LibraryImport("libc", SetLastError = true)]
    private static partial void* mmap(void* address, nuint length, int protection, int flags, int file, long offset);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int munmap(void* address, nuint length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int madvise(void* address, nuint length, int advice);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int memfd_create(string name, uint flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int ftruncate(int file, long length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int close(int file);

    [LibraryImport("libc")]
    private static partial nuint getauxval(nuint type);

    // libc has no wrapper for membarrier. syscall is variadic, which makes no difference to integer arguments on x86-64.
    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long membarrier(long number, long command, long flags, long cpu);
}
