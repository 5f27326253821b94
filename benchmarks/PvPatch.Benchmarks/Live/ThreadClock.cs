using System.Runtime.InteropServices;

namespace PvPatch.Benchmarks.Live;

/// <summary>Nanoseconds of a processor that a thread has had, readable from other threads while it runs. Linux only; 0 elsewhere.</summary>
internal sealed unsafe class ThreadClock
{
    // clock_getcpuclockid(3): a thread's clock is its number, inverted, above three bits that say "of one thread, as the scheduler counts".
    private const int ScheduledTimeOfThread = 6;

    private readonly int _clock;

    /// <summary>The calling thread's.</summary>
    public ThreadClock() => _clock = OperatingSystem.IsLinux() ? ~GetThreadNumber() << 3 | ScheduledTimeOfThread : 0;

    /// <summary>The time.</summary>
    public long Now
    {
        get
        {
            Timespec time = default;
            return _clock != 0 && ClockGetTime(_clock, &time) == 0 ? time.Seconds * 1_000_000_000 + time.Nanoseconds : 0;
        }
    }

    [DllImport("libc", EntryPoint = "gettid")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int GetThreadNumber();

    [DllImport("libc", EntryPoint = "clock_gettime")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int ClockGetTime(int clock, Timespec* time);

    private struct Timespec
    {
        public long Seconds;
        public long Nanoseconds;
    }
}
