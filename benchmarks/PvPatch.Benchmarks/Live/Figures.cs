namespace PvPatch.Benchmarks.Live;

/// <summary>What is made of many times.</summary>
internal static class Figures
{
    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
    }

    /// <summary>The middle one of the ratios within each round.</summary>
    public static double MedianRatio(IReadOnlyList<double> times, IReadOnlyList<double> baseline) =>
        Median(times.Zip(baseline, static (a, b) => a / b));

    /// <summary>Throws where a way gives something else than it should: what is wrong is not timed.</summary>
    public static void Check(string what, long found, long expected)
    {
        if (found != expected)
        {
            throw new InvalidOperationException($"{what}: {found}, expected {expected}");
        }
    }
}
