using System.Globalization;
using System.Runtime.InteropServices;

namespace PvPatch.Benchmarks.Live;

/// <summary>The mode <c>live</c>: what live sites cost where they run, when they are switched, and to keep.</summary>
internal static class LiveRun
{
    /// <summary>The exit code where the machine was too busy for some goal to be measured.</summary>
    private const int NotMeasured = 3;

    private const string LoadFile = "/proc/loadavg";

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 200;
        bool understood = arguments is []
            || (arguments is ["--rounds", string value] && int.TryParse(value, CultureInfo.InvariantCulture, out rounds) && rounds > 0);
        if (!understood)
        {
            Console.Error.WriteLine("usage: live [--rounds N]");
            return 2;
        }

        Console.WriteLine(
            $"{RuntimeInformation.FrameworkDescription}, {Environment.ProcessorCount} processors, load average {Load()}; {rounds} rounds");
        var goals = new Goals();
        using (var code = new ExecutedCode())
        {
            code.Run(rounds, goals);
        }

        WordSpeed.Run(rounds);
        SwitchCost.Run(rounds, goals);
        Throughput.Run(rounds, goals);
        SiteMemory.Run(goals);
        goals.Print(Load());
        Console.WriteLine($"load average {Load()}");
        return goals.AllMeasured ? 0 : NotMeasured;
    }

    private static string Load() => File.Exists(LoadFile) ? File.ReadAllText(LoadFile).Trim() : "unknown";
}
