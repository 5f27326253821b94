using System.Diagnostics;
using System.Globalization;
using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// What an executor gets done while its 256 sites flip every 2 ms between two bodies of the same cost, against what it gets done
/// undisturbed.
/// </summary>
/// <remarks>
/// Per nanosecond of a processor the thread has had, as the system counts it: interrupts and barriers are in that, the time other programs
/// take is not.
/// </remarks>
internal static class Throughput
{
    private const int WarmUpWindows = 4;
    private static readonly TimeSpan s_window = TimeSpan.FromMilliseconds(60);
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(2);

    public static void Run(int rounds, Goals goals)
    {
        Console.WriteLine();
        Console.WriteLine($"{"flips every 2 ms to undisturbed",-36}{"best",10}{"median",10}{"by wall",10}{"flips",8}");
        foreach (SiteClass kind in new[] { SiteClass.Atomic8, SiteClass.Guarded })
        {
            using var sites = new SwitchedSites(kind);
            Measure(sites, Math.Max(10, rounds / 4), goals);
        }
    }

    private static void Measure(SwitchedSites sites, int windows, Goals goals)
    {
        var quiet = new List<Window>();
        var flipped = new List<Window>();
        long flips = 0;
        for (int i = -WarmUpWindows; i < windows; i++)
        {
            bool quietFirst = (i & 1) == 0;
            Window first = Watch(sites, !quietFirst, ref flips);
            Window second = Watch(sites, quietFirst, ref flips);
            if (i >= 0)
            {
                quiet.Add(quietFirst ? first : second);
                flipped.Add(quietFirst ? second : first);
            }
        }

        double best = flipped.Max(static w => w.ByProcessor) / quiet.Max(static w => w.ByProcessor);
        double median = Figures.MedianRatio([.. flipped.Select(static w => w.ByProcessor)], [.. quiet.Select(static w => w.ByProcessor)]);
        double wall = Figures.MedianRatio([.. flipped.Select(static w => w.ByWall)], [.. quiet.Select(static w => w.ByWall)]);
        Console.WriteLine(
            string.Create(CultureInfo.InvariantCulture, $"{sites.Class,-36}{best,10:0.000}{median,10:0.000}{wall,10:0.000}{flips,8}"));
        goals.AtLeast($"{sites.Class}: executor's throughput, flips every 2 ms", 0.95, median);
    }

    private static Window Watch(SwitchedSites sites, bool flip, ref long flips)
    {
        long start = Stopwatch.GetTimestamp();
        (long entries, long time) = sites.Done;
        while (Stopwatch.GetElapsedTime(start) < s_window)
        {
            if (flip)
            {
                ApplyResult result = sites.Patcher.Switch((flips & 1) == 0 ? sites.Two : sites.One);
                flips++;
                Figures.Check($"{sites.Class}: flipped", result.Written, SwitchedSites.Count);
            }

            Thread.Sleep(s_pause);
        }

        (long entriesAfter, long timeAfter) = sites.Done;
        sites.ThrowIfFaulty();
        double done = entriesAfter - entries;
        return new Window(done / Math.Max(1, timeAfter - time), done / Stopwatch.GetElapsedTime(start).TotalNanoseconds);
    }

    private readonly record struct Window(double ByProcessor, double ByWall);
}
