using System.Diagnostics;
using System.Globalization;
using PvPatch.Live;

namespace PvPatch.Benchmarks.Live;

/// <summary>One way to write a loop over many sites.</summary>
/// <param name="Name">What is printed.</param>
/// <param name="Runs">Copies of it, which take turns: each runs the loop so many times and gives its sum.</param>
/// <param name="Expected">What a site adds to the sum.</param>
internal sealed record SiteRival(string Name, Func<long, long>[] Runs, int Expected)
{
    /// <summary>Which one it is compared with.</summary>
    public int Baseline { get; init; }
}

/// <summary>Ways to write a loop over many sites, in turns.</summary>
internal static unsafe class SiteRivals
{
    /// <summary>Sites of a loop.</summary>
    public const int Sites = 512;

    private const int InTurn = 1 << 18;
    private const int WarmUpRounds = 20;

    /// <summary>Runs all ways, checks their sums, and prints times and ratios.</summary>
    /// <returns>The least time of each, in nanoseconds a site.</returns>
    public static double[] Compare(string what, int rounds, SiteRival[] rivals)
    {
        foreach (SiteRival rival in rivals)
        {
            Array.ForEach(rival.Runs, run => Figures.Check($"{what}: {rival.Name}", run(1), Sites * (long)rival.Expected));
        }

        double[][] times = [.. rivals.Select(_ => new double[rounds])];
        for (int round = -WarmUpRounds; round < rounds; round++)
        {
            for (int i = 0; i < rivals.Length; i++)
            {
                int number = (i + round + WarmUpRounds) % rivals.Length;
                Func<long, long> run = rivals[number].Runs[(round + WarmUpRounds) % rivals[number].Runs.Length];
                _ = run(1);
                long start = Stopwatch.GetTimestamp();
                long sum = run(InTurn / Sites);
                double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / InTurn;
                Figures.Check(rivals[number].Name, sum, InTurn * (long)rivals[number].Expected);
                if (round >= 0)
                {
                    times[number][round] = time;
                }
            }
        }

        Console.WriteLine();
        Console.WriteLine($"{what + $", {Sites} sites",-36}{"min ns",10}{"median",10}{"ratio: min",12}{"median",10}");
        for (int i = 0; i < rivals.Length; i++)
        {
            double[] baseline = times[rivals[i].Baseline];
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{rivals[i].Name,-36}{times[i].Min(),10:0.000}{Figures.Median(times[i]),10:0.000}"
                    + $"{times[i].Min() / baseline.Min(),12:0.000}{Figures.MedianRatio(times[i], baseline),10:0.000}"));
        }

        return [.. times.Select(static t => t.Min())];
    }

    /// <summary>Runs a function that <see cref="SiteFunction"/> has emitted.</summary>
    public static Func<long, long> RunnerOf(CodeBlock block, int[] data) => loops =>
    {
        fixed (int* first = data)
        {
            return SiteFunction.Run(block.Address, first, loops);
        }
    };
}
