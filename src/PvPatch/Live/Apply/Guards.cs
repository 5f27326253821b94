using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>One site for the guard routine: 32 bytes, read by machine code, so the offsets matter.</summary>
[StructLayout(LayoutKind.Sequential, Size = SizeInBytes)]
internal unsafe struct GuardEntry
{
    public const int SizeInBytes = 32;
    public const int GuardOffset = 8;
    public const int HeadOffset = 10;
    public const int TailLengthOffset = 12;
    public const int TailOffset = 16;

    /// <summary>eb fe: a jump to itself.</summary>
    public const ushort Spin = 0xfeeb;

    /// <summary>The site's first byte in the write view.</summary>
    public byte* Site;

    /// <summary>Two bytes that keep executors out of the rest: a jump to the forwarding island, or to itself.</summary>
    public ushort Guard;

    /// <summary>The first two bytes to be.</summary>
    public ushort Head;

    /// <summary>How many bytes follow the first two.</summary>
    public int TailLength;

    private TailBytes _tail;

    public static GuardEntry Create(byte* site, int length, SiteBytes bytes, sbyte forward) => new()
    {
        Site = site,
        Guard = forward == 0 ? Spin : (ushort)(0xeb | (byte)forward << 8),
        Head = (ushort)bytes.Low,
        TailLength = length - 2,
        _tail = TailBytes.From(bytes),
    };

    /// <summary>The bytes behind the first two.</summary>
    public readonly ReadOnlySpan<byte> Tail => MemoryMarshal.CreateReadOnlySpan(in Unsafe.As<TailBytes, byte>(ref Unsafe.AsRef(in _tail)), TailLength);

    [StructLayout(LayoutKind.Sequential)]
    private struct TailBytes
    {
        public ulong Low;
        public ulong High;

        // The site's bytes shifted down by two.
        public static TailBytes From(SiteBytes bytes) => new() { Low = bytes.Low >> 16 | bytes.High << 48, High = bytes.High >> 16 };
    }
}

/// <summary>Drives the guard routine, and stands in with managed barriers where the native one fails or is missing.</summary>
internal static unsafe class GuardRunner
{
    /// <summary>Runs some phases for some sites, a barrier behind each.</summary>
    public static void Run(CodeArena arena, GuardEntry* entries, int count, int firstPhase, int lastPhase, BatchReport report)
    {
        // A single phase is asked for only with forwarding guards, which nobody waits at: managed code may hold those.
        bool native = lastPhase == 3 && !arena.Native.Barrier.IsZero;
        var routine = (delegate* unmanaged<GuardEntry*, long, int, void*, int>)arena.Native.Guards.Value;
        for (int phase = firstPhase; phase <= lastPhase; phase++)
        {
            int stopped = routine(entries, count, phase, native ? (void*)arena.Native.Barrier.Value : null);
            int done = (stopped == 0 ? 3 : stopped - 1) - phase + 1;
            if (done > 0)
            {
                report.AddBarriers(done, arena.Barrier);
                LiveMetrics.Barrier(arena.Barrier, done);
            }

            if (stopped == 0)
            {
                return;
            }

            // The guards are up. Leaving them is worse than a weaker barrier, and the old bytes can't come back without a barrier either.
            RunBarrier(arena, report);
            phase = stopped;
        }
    }

    /// <summary>Runs the arena's barrier, or the weak one every system has where that fails.</summary>
    public static void RunBarrier(CodeArena arena, BatchReport report)
    {
        if (arena.RunBarrier())
        {
            report.AddBarriers(1, arena.Barrier);
            return;
        }

        Interlocked.MemoryBarrierProcessWide();
        report.AddBarriers(1, BarrierKind.Weak);
        LiveMetrics.Barrier(BarrierKind.Weak);
        report.Add(PatchDiagnostic.Warning(DiagnosticCodes.WeakBarrier, "the system refused its barrier in the middle of a batch; a weaker one was run in its place") with
        {
            Help = "Was a seccomp filter installed after the arena was made?",
        });
    }
}
