using System.Diagnostics.Metrics;
using System.Diagnostics.Tracing;
using Microsoft.Extensions.Logging;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What live patchers tell of their batches: one line each in a log, per site only at debug, and the counters of the meter
/// <c>PvPatch.Live</c>. Event ids are stable. Nothing is measured that nobody listens to.
/// </summary>
internal static partial class LiveEvents
{
    public const string MeterName = "PvPatch.Live";

    private static readonly Meter s_meter = new(MeterName);

    private static readonly Counter<long> s_flips = s_meter.CreateCounter<long>("pvpatch.live.flips", "{site}", "Sites written");
    private static readonly Counter<long> s_batches = s_meter.CreateCounter<long>(
        "pvpatch.live.batches", "{batch}", "Batches, by how they ended");

    // What is counted under locks and between stores is only looked at when somebody asks: a listener is the host's code.
    private static readonly long[] s_barrierCounts = new long[(int)BarrierKind.SyncCore + 1];
    private static readonly ObservableCounter<long> s_barriers = s_meter.CreateObservableCounter(
        "pvpatch.live.barriers", Barriers, "{barrier}", "Barriers run, by kind");
    private static readonly ObservableUpDownCounter<long> s_sites = s_meter.CreateObservableUpDownCounter(
        "pvpatch.live.sites", static () => CodeArena.SumOverAll(static a => a.Registry.SiteCount), "{site}", "Live sites");
    private static readonly ObservableUpDownCounter<long> s_islands = s_meter.CreateObservableUpDownCounter(
        "pvpatch.live.islands", static () => CodeArena.SumOverAll(static a => a.Islands.Count), "{island}", "Islands");
    private static readonly Histogram<double> s_duration = s_meter.CreateHistogram<double>(
        "pvpatch.live.batch.duration", "us", "Time a batch took");
    private static readonly ObservableGauge<long> s_used =
        s_meter.CreateObservableGauge(
            "pvpatch.live.arena.used", static () => CodeArena.SumOverAll(static a => a.Used), "By", "Bytes of arenas in use");
    private static readonly ObservableGauge<long> s_committed =
        s_meter.CreateObservableGauge("pvpatch.live.arena.committed", static () => CodeArena.SumOverAll(static a => a.Committed), "By",
            "Bytes of arenas the system was asked for");

    [LoggerMessage(EventId = 1200, EventName = "LiveApplied", Level = LogLevel.Information, Message = "{Result}")]
    public static partial void Applied(ILogger logger, string result);

    [LoggerMessage(
        EventId = 1201, EventName = "LiveFailed", Level = LogLevel.Warning, Message = "{Result}; {Count} findings, the first: {First}")]
    public static partial void Failed(ILogger logger, string result, int count, PatchDiagnostic first);

    [LoggerMessage(EventId = 1202, EventName = "LiveSite", Level = LogLevel.Debug, Message = "{Name} {Site}")]
    public static partial void Site(ILogger logger, string name, SiteOutcome site);

    [LoggerMessage(EventId = 1203, EventName = "LiveWeakBarrier", Level = LogLevel.Warning,
        Message = "no core-serializing barrier is to be had here; switching uses one that nobody promises to serialize other processors")]
    public static partial void WeakBarrier(ILogger logger);

    /// <summary>Counts barriers that were run.</summary>
    public static void Barrier(BarrierKind kind, int count = 1) => Interlocked.Add(ref s_barrierCounts[(int)kind], count);

    /// <summary>Counts a batch.</summary>
    public static void Batch(in ApplyResult result)
    {
        s_flips.Add(result.Written);
        if (s_batches.Enabled)
        {
            s_batches.Add(1, new KeyValuePair<string, object?>("status", result.Status.ToString()));
        }

        s_duration.Record(result.Elapsed.TotalMicroseconds);
    }

    private static IEnumerable<Measurement<long>> Barriers()
    {
        for (BarrierKind kind = BarrierKind.Weak; kind <= BarrierKind.SyncCore; kind++)
        {
            yield return new Measurement<long>(
                Interlocked.Read(ref s_barrierCounts[(int)kind]), new KeyValuePair<string, object?>("kind", kind.ToString()));
        }
    }
}

/// <summary>The event source <c>PvPatch-Live</c>: a start and a stop for each batch, for traces. Event ids are stable.</summary>
[EventSource(Name = "PvPatch-Live")]
internal sealed class LiveEventSource : EventSource
{
    public static readonly LiveEventSource Log = new();

    private LiveEventSource()
    {
    }

    [NonEvent]
    public void BatchStart(string target, SwitchMode mode)
    {
        if (IsEnabled())
        {
            BatchStart(target, mode.ToString());
        }
    }

    [NonEvent]
    public void BatchStop(in ApplyResult result)
    {
        if (IsEnabled())
        {
            BatchStop(result.Status.ToString(), result.Written, result.Barriers, (long)result.Elapsed.TotalMicroseconds);
        }
    }

    [Event(1, Level = EventLevel.Informational, Message = "{1} batch to {0}")]
    private void BatchStart(string target, string mode) => WriteEvent(1, target, mode);

    [Event(2, Level = EventLevel.Informational, Message = "{0} after {3} us: {1} sites written, {2} barriers")]
    private void BatchStop(string status, int written, int barriers, long microseconds) =>
        WriteEvent(2, status, written, barriers, microseconds);
}
