using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live.Platform;

/// <summary>
/// The few things live patching asks of the system: memory mapped twice, a barrier, whether an address is code. Behind one class so that
/// tests can make each of them fail.
/// </summary>
internal abstract class LivePlatform
{
    private static readonly Lock s_lock = new();
    private static LivePlatform? s_current;

    /// <summary>The system this process runs on.</summary>
    /// <exception cref="PatchException">PV8006: no x86-64 process on Linux or Windows.</exception>
    public static LivePlatform Current
    {
        get
        {
            lock (s_lock)
            {
                return s_current ??= Create();
            }
        }
    }

    /// <summary>Reservations are multiples of this many bytes.</summary>
    public abstract int Granularity { get; }

    /// <summary>Whether a thread may set its gs base by <c>wrgsbase</c>, and nothing else needs it.</summary>
    public virtual bool CanSetGsBase => false;

    /// <summary>Reserves memory with a run view and a write view.</summary>
    /// <param name="near">The address it shall be near to; <see langword="null"/> where it does not matter.</param>
    /// <param name="size">Bytes, a multiple of <see cref="Granularity"/>.</param>
    /// <param name="options">Whether it must be in reach of the address, and how it is protected.</param>
    /// <param name="mapping">The memory, nothing of it committed.</param>
    /// <param name="error">PV8002: no room in reach; PV8003: the system refuses.</param>
    public abstract bool TryReserve(
        VirtualAddress? near, long size, ArenaOptions options, out CodeMapping? mapping, out PatchDiagnostic? error);

    /// <summary>Makes a stretch of reserved memory usable, zero-filled.</summary>
    /// <param name="mapping">The memory.</param>
    /// <param name="offset">From its start; a multiple of <see cref="CodeMapping.PageSize"/>.</param>
    /// <param name="length">Bytes; a multiple of <see cref="CodeMapping.PageSize"/>.</param>
    /// <param name="executable">
    /// Whether the run view can be executed, or only read: slots are data, and a store next to code makes processors that watch for
    /// self-modification throw away their work.
    /// </param>
    /// <param name="error">PV8003 with the system's own words.</param>
    public abstract bool TryCommit(CodeMapping mapping, long offset, long length, bool executable, out PatchDiagnostic? error);

    /// <summary>Makes the strongest barrier there is ready for use. Called once for each arena.</summary>
    public abstract BarrierKind PrepareBarrier();

    /// <summary>Runs a barrier.</summary>
    /// <param name="kind">What <see cref="PrepareBarrier"/> gave.</param>
    /// <returns>Whether it was run.</returns>
    public abstract bool TryBarrier(BarrierKind kind);

    /// <summary>
    /// Writes a function without arguments that runs the barrier and gives 0 in eax, or anything else where it failed. It may destroy what
    /// a function of the system's own convention may. Nothing is written where the barrier can only be run by managed code.
    /// </summary>
    public abstract bool TryWriteBarrier(Assembler assembler, BarrierKind kind);

    /// <summary>A test of whether code may run at an address, as of now; <see langword="null"/> where that can't be found out.</summary>
    public abstract Predicate<VirtualAddress>? ExecutableTest();

    private static LivePlatform Create()
    {
        bool x64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;
        return x64 && OperatingSystem.IsLinux() ? new LinuxPlatform()
            : x64 && OperatingSystem.IsWindows() ? new WindowsPlatform()
            : throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.LiveUnsupported, "live patching is not available here") with
            {
                Found = $"{RuntimeInformation.ProcessArchitecture} on {RuntimeInformation.OSDescription}",
                Expected = "an x86-64 process on Linux or Windows",
                Help = "Plan and apply to a CodeImage instead: that works everywhere.",
            });
    }
}
