using System.Diagnostics.Metrics;

namespace PvPatch.Live;

/// <summary>The counters of the meter <c>PvPatch.Live</c>. Nothing is measured that nobody listens to.</summary>
internal static class LiveMetrics
{
    public const string MeterName = "PvPatch.Live";

    private static readonly Meter s_meter = new(MeterName);

    private static readonly Counter<long> s_flips = s_meter.CreateCounter<long>("pvpatch.live.flips", "{site}", "Sites written");
    private static readonly Counter<long> s_batches = s_meter.CreateCounter<long>("pvpatch.live.batches", "{batch}", "Batches, by how they ended");
    private static readonly Counter<long> s_barriers = s_meter.CreateCounter<long>("pvpatch.live.barriers", "{barrier}", "Barriers run, by kind");
    private static readonly UpDownCounter<long> s_sites = s_meter.CreateUpDownCounter<long>("pvpatch.live.sites", "{site}", "Live sites");
    private static readonly UpDownCounter<long> s_islands = s_meter.CreateUpDownCounter<long>("pvpatch.live.islands", "{island}", "Islands");
    private static readonly Histogram<double> s_duration = s_meter.CreateHistogram<double>("pvpatch.live.batch.duration", "us", "Time a batch took");
    private static readonly ObservableGauge<long> s_used =
        s_meter.CreateObservableGauge("pvpatch.live.arena.used", static () => ArenaDirectory.Sum(static a => a.Used), "By", "Bytes of arenas in use");
    private static readonly ObservableGauge<long> s_committed =
        s_meter.CreateObservableGauge("pvpatch.live.arena.committed", static () => ArenaDirectory.Sum(static a => a.Committed), "By", "Bytes of arenas the system was asked for");

    public static void SitesAdded(int count) => s_sites.Add(count);

    public static void SitesRemoved(int count) => s_sites.Add(-count);

    public static void Island(int change) => s_islands.Add(change);

    public static void Barrier(BarrierKind kind, int count = 1)
    {
        if (s_barriers.Enabled)
        {
            s_barriers.Add(count, new KeyValuePair<string, object?>("kind", kind.ToString()));
        }
    }

    public static void Batch(SwitchResult result)
    {
        s_flips.Add(result.Written);
        if (s_batches.Enabled)
        {
            s_batches.Add(1, new KeyValuePair<string, object?>("status", result.Status.ToString()));
        }

        s_duration.Record(result.Elapsed.TotalMicroseconds);
    }
}
