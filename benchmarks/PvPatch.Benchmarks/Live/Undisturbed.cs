using System.Diagnostics;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// Times something while an executor runs, and says whether it had a processor all along: by its clock it had at least as much time as passed, and between the readings around it
/// there was no room to have had that time before or behind.
/// </summary>
internal readonly struct Undisturbed
{
    private const double RoomNanoseconds = 4_000;

    private readonly SwitchedSites _sites;
    private readonly long _outer;
    private readonly long _had;
    private readonly long _start;

    public Undisturbed(SwitchedSites sites)
    {
        _sites = sites;
        _outer = Stopwatch.GetTimestamp();
        _had = sites.ProcessorTime;
        _start = Stopwatch.GetTimestamp();
    }

    /// <summary>Ends it.</summary>
    /// <param name="nanoseconds">Time since it was made.</param>
    /// <returns>Whether the time counts.</returns>
    public bool Stop(out double nanoseconds)
    {
        nanoseconds = Stopwatch.GetElapsedTime(_start).TotalNanoseconds;
        long had = _sites.ProcessorTime - _had;
        double outer = Stopwatch.GetElapsedTime(_outer).TotalNanoseconds;
        return had >= nanoseconds && outer - nanoseconds <= RoomNanoseconds;
    }
}
