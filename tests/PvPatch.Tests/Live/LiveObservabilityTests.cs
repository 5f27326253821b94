using System.Diagnostics.Metrics;
using System.Diagnostics.Tracing;
using Microsoft.Extensions.Logging;
using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

public sealed class LiveObservabilityTests
{
    [Fact]
    public void A_batch_is_one_line_in_the_log_and_one_for_each_site_at_debug()
    {
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1));
        using var log = new Lines(LogLevel.Information);
        using (var patcher = new LivePatcher(code.Arena, code.Layout, log))
        {
            ApplyResult result = patcher.Switch(code.Inlined);
            Assert.Equal(result.ToString(), Assert.Single(log.Text));
            Assert.StartsWith("inlined: Applied, 2 of 2 sites written, 0 kept indirect, 3 slots, 3 barriers (SyncCore), ", log.Text[0],
                StringComparison.Ordinal);
        }

        using var verbose = new Lines(LogLevel.Debug);
        using (var patcher = new LivePatcher(code.Arena, code.Layout, verbose))
        {
            patcher.Switch(code.Direct);
            Assert.Equal(3, verbose.Text.Count);
            Assert.Contains("t.first", verbose.Text[1], StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Counters_count_sites_flips_barriers_islands_and_bytes()
    {
        var totals = new Dictionary<string, double>();
        using var listener = new MeterListener { InstrumentPublished = static (i, l) => EnableOurs(i, l) };
        listener.SetMeasurementEventCallback<long>((i, value, _, _) => Add(totals, i.Name, value));
        listener.SetMeasurementEventCallback<double>((i, value, _, _) => Add(totals, i.Name, value));
        listener.Start();
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1));
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Outlined);
        listener.RecordObservableInstruments();

        // Other tests run at the same time and count too.
        foreach ((string name, double least) in ((string, double)[])[
            ("pvpatch.live.sites", 2), ("pvpatch.live.flips", 2), ("pvpatch.live.batches", 1), ("pvpatch.live.barriers", 3),
            ("pvpatch.live.islands", 2), ("pvpatch.live.batch.duration", 0.001), ("pvpatch.live.arena.used", code.Arena.Used),
            ("pvpatch.live.arena.committed", code.Arena.Committed)])
        {
            Assert.True(totals.GetValueOrDefault(name) >= least, $"{name} {totals.GetValueOrDefault(name)}");
        }
    }

    [Fact]
    public void A_listener_that_throws_does_not_break_a_batch()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1));
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using var listener = new MeterListener
        {
            InstrumentPublished = static (i, l) =>
            {
                if (i.Name == "pvpatch.live.barriers")
                {
                    EnableOurs(i, l);
                }
            },
        };
        listener.SetMeasurementEventCallback<long>(static (_, _, _, _) => throw new InvalidOperationException("a listener's"));
        listener.Start();
        Assert.Equal(ApplyStatus.Applied, patcher.TrySwitch(code.Inlined).Status);
        Assert.Equal(2, code.Arena.Registry.SiteCount);
        code.Arena.Retire(block);
        code.Arena.Reclaim();
        Assert.Equal(0, code.Arena.Registry.SiteCount);
    }

    [Fact]
    public void The_event_source_tells_of_a_batchs_start_and_end()
    {
        using var events = new Events();
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher();
        string name = $"seen {Guid.NewGuid()}";
        patcher.Switch(code.Inlined.Derive(name, static _ => { }));
        Assert.Contains(events.Seen, e => e.Id == 1 && e.First == name);
        Assert.Contains(events.Seen, static e => e.Id == 2 && e.First == "Applied");
    }

    [Fact]
    public void A_dump_names_sites_slots_and_islands()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 8, Start: 8), new SiteWish(1, 6, Start: 60, Forwarding: true));
        using LivePatcher patcher = code.Patcher();
        string before = code.Arena.Dump(block);
        Assert.Contains("site t.first Atomic8 Original Original, slot t.first = ", before, StringComparison.Ordinal);
        Assert.Contains("site t.second Guarded Original Original forwarding, slot t.second = ", before, StringComparison.Ordinal);
        patcher.Switch(code.Outlined);
        string[] after = code.Arena.Dump(block).Split('\n');
        Assert.Contains(after, static l => l.Contains("jmp ", StringComparison.Ordinal)
            && l.EndsWith("; site t.first Atomic8 Bound Island, to island", StringComparison.Ordinal));
        patcher.Switch(code.Nops);
        Assert.Contains("site t.first Atomic8 Bound OneInstruction\n", code.Arena.Dump(block), StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => code.Arena.Dump(code.Arena.Address, (int)code.Arena.Size));
        Assert.Throws<ArgumentOutOfRangeException>(() => code.Arena.Dump(code.Arena.Address + -1, 10));
    }

    [Fact]
    public void A_live_site_is_remembered_in_20_bytes_and_what_became_of_it_in_12()
    {
        Assert.Equal(20, System.Runtime.CompilerServices.Unsafe.SizeOf<SiteRecord>());
        Assert.Equal(12, System.Runtime.CompilerServices.Unsafe.SizeOf<SiteOutcome>());
    }

    private static void EnableOurs(Instrument instrument, MeterListener listener)
    {
        if (instrument.Meter.Name == LiveEvents.MeterName)
        {
            listener.EnableMeasurementEvents(instrument);
        }
    }

    private static void Add(Dictionary<string, double> totals, string name, double value)
    {
        lock (totals)
        {
            // What other tests retire meanwhile is not to be taken from what is added here.
            totals[name] = totals.GetValueOrDefault(name) + Math.Max(0, value);
        }
    }

    private sealed class Lines(LogLevel least) : ILoggerFactory, ILogger
    {
        public List<string> Text { get; } = [];

        public void AddProvider(ILoggerProvider provider)
        {
        }

        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= least;

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (IsEnabled(logLevel))
            {
                Text.Add(formatter(state, exception));
            }
        }

        public void Dispose()
        {
        }
    }

    private sealed class Events : EventListener
    {
        public System.Collections.Concurrent.ConcurrentQueue<(int Id, string First)> Seen { get; } = new();

        protected override void OnEventSourceCreated(EventSource eventSource)
        {
            if (eventSource.Name == "PvPatch-Live")
            {
                EnableEvents(eventSource, EventLevel.Informational);
            }
        }

        protected override void OnEventWritten(EventWrittenEventArgs eventData) =>
            Seen.Enqueue((eventData.EventId, eventData.Payload?[0] as string ?? ""));
    }
}
