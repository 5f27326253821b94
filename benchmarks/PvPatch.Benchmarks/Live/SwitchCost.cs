using System.Diagnostics;
using System.Globalization;
using PvPatch.Live;
using PvPatch.Ops;

namespace PvPatch.Benchmarks.Live;

/// <summary>What a batch of 256 sites costs while a thread runs them, and the same sites one at a time. Whole calls are timed, results and all.</summary>
internal static class SwitchCost
{
    private const int WarmUpRounds = 100;
    private const int BatchesInRound = 9;

    public static void Run(int rounds, Goals goals)
    {
        Console.WriteLine();
        Console.WriteLine($"{"switching 256 sites, ns a site",-36}{"min",10}{"median",10}");
        foreach ((SiteClass kind, double goal) in new[] { (SiteClass.Atomic8, 80.0), (SiteClass.Guarded, 160.0) })
        {
            using var sites = new SwitchedSites(kind);
            Measure(sites, rounds, goal, goals);
        }
    }

    private static void Measure(SwitchedSites sites, int rounds, double goal, Goals goals)
    {
        Backend[] backends = [sites.One, sites.Direct, sites.Two];
        var batch = new List<double>();
        var alone = new List<double>();
        var single = new LiveSite[1];
        for (int round = -WarmUpRounds; round < rounds; round++)
        {
            for (int i = 0; i < BatchesInRound; i++)
            {
                long start = Stopwatch.GetTimestamp();
                SwitchResult result = sites.Patcher.Switch(backends[i % backends.Length]);
                Keep(batch, round, start, SwitchedSites.Count);
                Figures.Check($"{sites.Class}: written in a batch", result.Written, SwitchedSites.Count);
            }

            // The batches end with Two.
            single[0] = sites.Sites[(round + WarmUpRounds) % SwitchedSites.Count];
            for (int i = 0; i < 2; i++)
            {
                long start = Stopwatch.GetTimestamp();
                SwitchResult result = sites.Patcher.Switch(single, i == 0 ? sites.Direct : sites.Two);
                Keep(alone, round, start, 1);
                Figures.Check($"{sites.Class}: written alone", result.Written, 1);
            }

            sites.ThrowIfFaulty();
        }

        Print($"{sites.Class}, a batch", batch);
        Print($"{sites.Class}, one at a time", alone);
        goals.AtMost($"{sites.Class}: ns a site in a batch of 256", goal, batch.Min());
        goals.AtLeast($"{sites.Class}: one at a time to a batch, minima", 100, alone.Min() / batch.Min());
        goals.AtLeast($"{sites.Class}: one at a time to a batch, medians", 100, Figures.Median(alone) / Figures.Median(batch));
    }

    private static void Keep(List<double> times, int round, long start, int sites)
    {
        if (round >= 0)
        {
            times.Add(Stopwatch.GetElapsedTime(start).TotalNanoseconds / sites);
        }
    }

    private static void Print(string what, List<double> times) =>
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{what,-36}{times.Min(),10:0.0}{Figures.Median(times),10:0.0}"));
}
