using System.Diagnostics;
using System.Globalization;
using PvPatch.Live;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// What a batch of 256 sites costs while a thread runs them, and the same sites one at a time. Whole calls are timed, results and all. A
/// time counts only if the thread had a processor all along: a barrier that finds nobody running is cheap, and on a busy machine the minima
/// would be of those.
/// </summary>
internal static class SwitchCost
{
    private const int WarmUpRounds = 100;
    private const int BatchesInRound = 9;

    /// <summary>Sites switched one at a time under one reading of the clock.</summary>
    private const int InRow = 8;

    /// <summary>
    /// Times that count, of batches and of sites one at a time; on a busy machine more rounds are made until there are so many of both.
    /// </summary>
    private const int Enough = 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(15);

    public static void Run(int rounds, Goals goals)
    {
        Console.WriteLine();
        Console.WriteLine($"{"switching, ns a site",-36}{"min",10}{"quarter",10}{"median",10}{"times",8}");
        foreach ((SiteClass kind, double goal) in new[] { (SiteClass.Atomic8, 80.0), (SiteClass.Guarded, 160.0) })
        {
            using var sites = new SwitchedSites(kind);
            Measure(sites, rounds, goal, goals);
        }
    }

    private static void Measure(SwitchedSites sites, int rounds, double goal, Goals goals)
    {
        Backend[] backends = [sites.One, sites.Direct, sites.Two];
        SiteScope[] singles = [.. sites.Sites.Select(static s => SiteScope.Sites(s))];
        var batch = new List<double>();
        var inside = new List<double>();
        var alone = new List<double>();
        int rounded = 0;
        long began = Stopwatch.GetTimestamp();
        for (int round = -WarmUpRounds; round < rounds
            || (Math.Min(batch.Count, alone.Count) < Enough && Stopwatch.GetElapsedTime(began) < s_patience); round++)
        {
            if (round is -WarmUpRounds / 2 or 0)
            {
                Thread.Sleep(500); // the compiler's later tiers are made in the background
            }

            rounded += round >= 0 ? 1 : 0;
            Thread.Sleep(1); // a thread that has slept comes in at once, on a processor of its own if it can
            for (int i = 0; i < BatchesInRound; i++)
            {
                var clock = new Undisturbed(sites.Clock);
                ApplyResult result = sites.Patcher.Switch(backends[i % backends.Length]);
                bool counts = clock.Stop(out double time) && round >= 0;
                Figures.Check($"{sites.Class}: written in a batch", result.Written, SwitchedSites.Count);
                if (counts)
                {
                    batch.Add(time / SwitchedSites.Count);
                    inside.Add(result.Elapsed.TotalNanoseconds / SwitchedSites.Count);
                }
            }

            // The batches end with Two, so that every one of these has something to write.
            Alone(sites, singles, round, alone);
            sites.ThrowIfFaulty();
        }

        Print($"{sites.Class}, a batch of {SwitchedSites.Count}", batch, rounded * BatchesInRound);
        Print($"{sites.Class}, the same by its own clock", inside, rounded * BatchesInRound);
        Print($"{sites.Class}, one at a time", alone, rounded);
        Judge(sites.Class, goal, goals, batch, alone);
    }

    private static void Alone(SwitchedSites sites, SiteScope[] singles, int round, List<double> times)
    {
        int first = (round + WarmUpRounds) * InRow % SwitchedSites.Count;
        int written = 0;
        var clock = new Undisturbed(sites.Clock);
        for (int i = 0; i < InRow; i++)
        {
            written += sites.Patcher.Switch(sites.Direct, singles[first + i]).Written;
        }

        bool counts = clock.Stop(out double time) && round >= 0;
        Figures.Check($"{sites.Class}: written alone", written, InRow);
        if (counts)
        {
            times.Add(time / InRow);
        }
    }

    /// <summary>Adds the goals; where no time counted, that they were not measured.</summary>
    internal static void Judge(SiteClass kind, double goal, Goals goals, List<double> batch, List<double> alone)
    {
        double? ratio = batch.Count > 0 && alone.Count > 0 ? alone.Min() / batch.Min() : null;
        double? middle = batch.Count > 0 && alone.Count > 0 ? Figures.Median(alone) / Figures.Median(batch) : null;
        goals.AtMost($"{kind}: ns a site in a batch of {SwitchedSites.Count}, least", goal, batch.Count > 0 ? batch.Min() : null);
        goals.AtMost(
            $"{kind}: ns a site in a batch of {SwitchedSites.Count}, median", goal, batch.Count > 0 ? Figures.Median(batch) : null);
        goals.AtLeast($"{kind}: one at a time to a batch, minima", 100, ratio);
        goals.AtLeast($"{kind}: one at a time to a batch, medians", 100, middle);
    }

    internal static void Print(string what, List<double> times, int tries)
    {
        if (times.Count == 0)
        {
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{what,-36}{"–",10}  0 of {tries} times counted: the executor never had a processor all along"));
            return;
        }

        Console.WriteLine(
            string.Create(CultureInfo.InvariantCulture,
            $"{what,-36}{times.Min(),10:0.0}{times.Order().ElementAt(times.Count / 4),10:0.0}{Figures.Median(times),10:0.0}{times.Count,8}"));
    }
}
