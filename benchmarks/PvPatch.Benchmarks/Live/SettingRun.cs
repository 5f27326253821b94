using System.Globalization;
using System.Runtime.InteropServices;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The mode <c>settings</c>: keys, branches, static calls and arguments, where they run, when they are changed, and to keep.
/// </summary>
internal static class SettingRun
{
    private const int NotMeasured = 3;
    private const string LoadFile = "/proc/loadavg";

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 200;
        bool understood = arguments is []
            || (arguments is ["--rounds", string value] && int.TryParse(value, CultureInfo.InvariantCulture, out rounds) && rounds > 0);
        if (!understood)
        {
            Console.Error.WriteLine("usage: settings [--rounds N]");
            return 2;
        }

        Console.WriteLine(
            $"{RuntimeInformation.FrameworkDescription}, {Environment.ProcessorCount} processors, load average {Load()}; {rounds} rounds");
        var goals = new Goals();
        using (var code = new SettingSpeed())
        {
            code.Run(rounds, goals);
        }

        using (var argument = new ArgumentSpeed())
        {
            argument.Run(rounds, goals);
        }

        SettingCost.Run(rounds, goals);
        UnlinkCost.Run(rounds, goals);
        goals.Print(Load());
        Console.WriteLine($"load average {Load()}");
        return goals.AllMeasured ? 0 : NotMeasured;
    }

    private static string Load() => File.Exists(LoadFile) ? File.ReadAllText(LoadFile).Trim() : "unknown";
}
