using System.Diagnostics;

namespace PvPatch.KernelTests.Harness;

/// <summary>Lets a stopped machine run for a while and stops it again.</summary>
internal abstract class RunControl(SerialConsole console)
{
    /// <summary>Lets the machine run until something holds, then stops it.</summary>
    /// <param name="reached">Asked again and again; may wait as long as it is told for what it looks for.</param>
    /// <param name="timeout">Longest run.</param>
    /// <returns>False if the time is over or the guest ended first; a machine that goes on then is not stopped.</returns>
    /// <exception cref="IOException">QEMU ended amidst a command.</exception>
    public abstract bool RunUntil(Func<TimeSpan, bool> reached, TimeSpan timeout);

    /// <summary>Lets the machine run for a short time and stops it wherever it is.</summary>
    public bool RunFor(TimeSpan time)
    {
        Stopwatch clock = Stopwatch.StartNew();
        return RunUntil(
            slice =>
            {
                Thread.Sleep(time < slice ? time : slice);
                return clock.Elapsed >= time;
            },
            time + TimeSpan.FromSeconds(30));
    }

    /// <summary>Whether it is of no use to wait any longer.</summary>
    protected bool IsOver(Stopwatch clock, TimeSpan timeout)
    {
        return console.IsClosed || clock.Elapsed >= timeout;
    }
}
