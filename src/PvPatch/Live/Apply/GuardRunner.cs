namespace PvPatch.Live;

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
