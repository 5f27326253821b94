using System.Diagnostics;
using System.Globalization;
using System.Runtime;
using PvPatch.Mechanisms;

namespace PvPatch.Benchmarks;

/// <summary>
/// The comparison for a noisy machine: all ways take turns, round after round, so that whatever disturbs one disturbs its
/// neighbours too; a ratio is taken within each round before the middle one is chosen.
/// </summary>
internal static class Ratios
{
    private const int WarmUpRounds = 40;
    private const int SmallTable = 4_000;
    private const int SmallRounds = 200;

    public static int Run(IReadOnlyList<Shape> shapes, int rounds, int sites)
    {
        Console.WriteLine($"C loop: {CLoop.Description}");
        foreach (Shape shape in shapes)
        {
            Compare(shape, rounds, sites);
        }

        return 0;
    }

    private static void Compare(Shape shape, int rounds, int sites)
    {
        var rivals = new OfflineRivals(shape, sites);
        Way[] ways = Ways(rivals);
        for (int i = 0; i < WarmUpRounds; i++)
        {
            foreach (Way way in ways)
            {
                if (!way.IsSlow || i < 3)
                {
                    way.Time();
                }
            }
        }

        Thread.Sleep(500); // the compiler's last tier is made in the background
        var times = ways.ToDictionary(static w => w, _ => new double[rounds]);
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < ways.Length; i++)
            {
                Way way = ways[(i + round) % ways.Length];
                times[way][round] = way.Time() / sites;
            }
        }

        Report(shape, rivals, ways, times, rounds, sites);
        ReportPlans(shape, rivals, sites);
        ReportNewPages(rivals, sites);
        ReportMemory(rivals, sites);
    }

    private static Way[] Ways(OfflineRivals rivals)
    {
        var ways = new List<Way>();
        if (CLoop.IsThere)
        {
            ways.Add(new Way("C loop", rivals.Reset, rivals.C));
        }

        ways.Add(new Way("Iced Encoder, reused", rivals.Reset, rivals.Encoder));
        ways.Add(new Way("Iced BlockEncoder", rivals.Reset, rivals.BlockEncoder) { IsSlow = true });
        ways.Add(new Way("PvPatch plan", rivals.Reset, () => rivals.Plan()));
        ways.Add(new Way("PvPatch apply", rivals.Reset, () => rivals.Apply()));
        ways.Add(new Way("PvPatch apply, not masked", rivals.Reset, rivals.ApplyUnmasked));
        ways.Add(new Way("PvPatch plan + apply", rivals.Reset, () => rivals.PlanAndApply()));
        ways.Add(new Way("PvPatch plan of a switch", () => Patched(rivals), () => rivals.PlanSwitch()));
        ways.Add(new Way("PvPatch second apply", () => Patched(rivals), () => rivals.Apply()));
        ways.Add(new Way("PvPatch revert", () => Patched(rivals), () => rivals.Revert()));
        return [.. ways];
    }

    private static void Patched(OfflineRivals rivals)
    {
        rivals.Reset();
        rivals.Apply();
    }

    private static void Report(Shape shape, OfflineRivals rivals, Way[] ways, Dictionary<Way, double[]> times, int rounds, int sites)
    {
        Console.WriteLine();
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{shape}: {sites} sites, {rounds} rounds; {rivals.Summary}"));
        Console.WriteLine($"{"",-26}{"min ns",10}{"median",10}{"ratio: min",12}{"median",10}");
        double[] baseline = times[ways[0]];
        foreach (Way way in ways)
        {
            double[] mine = times[way];
            double[] ratios = [.. mine.Zip(baseline, static (a, b) => a / b)];
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{way.Name,-26}{mine.Min(),10:0.00}{Median(mine),10:0.00}{mine.Min() / baseline.Min(),12:0.00}{Median(ratios),10:0.00}"));
        }
    }

    /// <summary>
    /// Plans for which nothing is kept (backends take turns, more than a planner keeps, whose bodies are known), and plans of a small
    /// table, where what is done once for each kind counts most: made first, made again, and made by a planner of its own.
    /// </summary>
    private static void ReportPlans(Shape shape, OfflineRivals rivals, int sites)
    {
        rivals.Reset();
        Report("plan, first for a backend", Times(() => rivals.PlanFirst()), sites);
        var small = new OfflineRivals(shape, SmallTable);
        small.Reset();
        Report($"plan of {SmallTable} sites", Times(() => small.Plan()), SmallTable);
        Report($"plan of {SmallTable} sites, first", Times(() => small.PlanFirst()), SmallTable);
        Report($"plan of {SmallTable} sites, new planner",
            Times(() => new PatchPlanner().Plan(small.Work.Image, small.Work.Sites, small.Work.Backend)), SmallTable);

        static double[] Times(Action plan)
        {
            double[] times = new double[SmallRounds];
            for (int i = 0; i < times.Length; i++)
            {
                long start = Stopwatch.GetTimestamp();
                plan();
                times[i] = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
            }

            return times[(times.Length / 4)..]; // the compiler's last tier is made during the others
        }

        static void Report(string what, double[] times, int sites) => Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"{what + ":",-38}{times.Min() / sites,8:0.00} ns, median {Median(times) / sites:0.00}"));
    }

    /// <summary>
    /// The same plan where the heap has no room and must ask the system for pages: the first plan of a process, at worst.
    /// </summary>
    private static void ReportNewPages(OfflineRivals rivals, int sites)
    {
        rivals.Reset();
        var kept = new List<object>();
        double[] times = new double[20];
        for (int i = 0; i < times.Length; i++)
        {
            long start = Stopwatch.GetTimestamp();
            kept.Add(rivals.Plan());
            times[i] = Stopwatch.GetElapsedTime(start).TotalNanoseconds / sites;
        }

        GC.KeepAlive(kept);
        Console.WriteLine(
            string.Create(CultureInfo.InvariantCulture, $"plan in memory new to the process: median {Median(times):0.00} ns"));
    }

    private static void ReportMemory(OfflineRivals rivals, int sites)
    {
        rivals.Reset();
        GCSettings.LargeObjectHeapCompactionMode = GCLargeObjectHeapCompactionMode.CompactOnce;
        long retainedBefore = GC.GetTotalMemory(forceFullCollection: true);
        long before = GC.GetAllocatedBytesForCurrentThread();
        object plan = rivals.Plan();
        long planned = GC.GetAllocatedBytesForCurrentThread() - before;
        long retained = GC.GetTotalMemory(forceFullCollection: true) - retainedBefore;
        GC.KeepAlive(plan);
        before = GC.GetAllocatedBytesForCurrentThread();
        rivals.Apply();
        long applied = GC.GetAllocatedBytesForCurrentThread() - before;
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"memory: plan allocates {(double)planned / sites:0.0} bytes a site and keeps {(double)retained / sites:0.0}; apply "
                + $"allocates {applied} bytes in all"));
    }

    private static double Median(double[] values)
    {
        double[] sorted = [.. values.Order()];
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }

    /// <summary>One way to patch the workload.</summary>
    private sealed class Way(string name, Action prepare, Action run)
    {
        public string Name => name;

        /// <summary>Whether a few rounds warm it up enough.</summary>
        public bool IsSlow { get; init; }

        /// <summary>Nanoseconds for all sites.</summary>
        public double Time()
        {
            prepare();
            // The plan of the turn before goes now, not within this turn, and its memory is there to be used again.
            GC.Collect();
            long start = Stopwatch.GetTimestamp();
            run();
            return Stopwatch.GetElapsedTime(start).TotalNanoseconds;
        }
    }
}
