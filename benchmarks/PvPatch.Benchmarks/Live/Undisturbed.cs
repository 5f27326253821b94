using System.Diagnostics;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// Times something while an executor runs, and says whether it had a processor all along: by its own clock, it had all the time that passed
/// between two readings of that clock, but for what the readings take.
/// </summary>
internal readonly struct Undisturbed
{
    private const double RoomNanoseconds = 1_000;

    private readonly ThreadClock? _clock;
    private readonly long _outer;
    private readonly long _had;
    private readonly long _start;

    /// <summary>Begins.</summary>
    /// <param name="clock">The executor's, once it has one.</param>
    public Undisturbed(ThreadClock? clock)
    {
        _clock = clock;
        _outer = Stopwatch.GetTimestamp();
        _had = clock?.Now ?? 0;
        _start = Stopwatch.GetTimestamp();
    }

    /// <summary>Ends it.</summary>
    /// <param name="nanoseconds">Time since it was made.</param>
    /// <returns>Whether the time counts.</returns>
    public bool Stop(out double nanoseconds)
    {
        nanoseconds = Stopwatch.GetElapsedTime(_start).TotalNanoseconds;
        long had = (_clock?.Now ?? 0) - _had;
        double outer = Stopwatch.GetElapsedTime(_outer).TotalNanoseconds;
        return !OperatingSystem.IsLinux() || had >= outer - RoomNanoseconds; // elsewhere there is no such clock, and every time counts
    }
}
