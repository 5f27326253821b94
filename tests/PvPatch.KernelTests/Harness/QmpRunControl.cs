using System.Diagnostics;

namespace PvPatch.KernelTests.Harness;

/// <summary>Runs a machine by QMP's cont and stop.</summary>
internal sealed class QmpRunControl(Qmp qmp, SerialConsole console) : RunControl(console)
{
    private static readonly TimeSpan s_slice = TimeSpan.FromSeconds(1);

    public override bool RunUntil(Func<TimeSpan, bool> reached, TimeSpan timeout)
    {
        Stopwatch clock = Stopwatch.StartNew();
        qmp.Execute("cont");
        while (!reached(s_slice))
        {
            if (IsOver(clock, timeout))
            {
                return false;
            }
        }

        qmp.Execute("stop");
        return true;
    }
}
