using System.Diagnostics;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.LiveTorture;

/// <summary>Executors run the functions without end while one patcher switches the sites without end.</summary>
internal sealed unsafe class TortureRun : IDisposable
{
    /// <summary>
    /// How many seconds longer than asked for a run may go on until everything was seen: on a busy machine an executor may not have run
    /// under every backend by then.
    /// </summary>
    public const double Patience = 60;

    private readonly TortureOptions _options;
    private readonly TortureCode _code;
    private readonly LivePatcher _patcher;
    private readonly long[][] _counts;
    private readonly List<Thread> _threads = [];
    private volatile bool _stop;
    private volatile string? _fault;

    public TortureRun(TortureOptions options)
    {
        _options = options;
        _code = new TortureCode(options);
        _patcher = new LivePatcher(_code.Arena, _code.Layout);

        // Before anything runs: slots that nothing is bound to hold a trap.
        _patcher.Switch(_code.Direct, options: new SwitchOptions { Mode = SwitchMode.Quiescent });
        _counts = [.. Enumerable.Range(0, options.Executors).Select(static _ => GC.AllocateArray<long>(16, pinned: true))];
    }

    /// <summary>Runs to the end of the time; the exit code.</summary>
    public int Execute()
    {
        SloppyPatcher? sloppy = _options.Protocol == Protocol.Library ? null : new SloppyPatcher(_options.Protocol, _code, _patcher);
        for (int i = 0; i < _options.Executors; i++)
        {
            Start(i);
        }

        if (_options.Collect)
        {
            var collector = new Thread(Collect);
            _threads.Add(collector);
            collector.Start();
        }

        long flips = 0;
        long batches = 0;
        long start = Stopwatch.GetTimestamp();
        Backend[] backends = [_code.Inlined, _code.Outlined, _code.Direct];
        LiveSite[] sites = [.. _code.Blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i]))];
        var random = new Random(unchecked(_options.Seed + 1));
        while (_fault is null && IsTime(Stopwatch.GetElapsedTime(start).TotalSeconds))
        {
            flips += sloppy?.Flip()
                ?? (_options.Links && batches % 4 == 0 ? Link(sites, random) : Switch(backends[batches % backends.Length], sites, random));
            batches++;
            Pause();
        }

        _stop = true;
        _threads.ForEach(static t => t.Join());
        return Report(flips, batches, Stopwatch.GetElapsedTime(start));
    }

    /// <summary>What a batch costs: least and median over many, for each backend switched to.</summary>
    public int Measure()
    {
        for (int i = 0; i < _options.Executors; i++)
        {
            Start(i);
        }

        Backend[] backends = [_code.Inlined, _code.Outlined, _code.Direct];
        List<double>[] times = [[], [], []];
        List<double> again = [];
        List<double> links = [];
        LiveSite[] sites = [.. _code.Blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i]))];
        SiteLink[] wishes = [.. sites.Select(s => new SiteLink(s, _code.Targets[0].Address, RegisterSet.Rax))];
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; Stopwatch.GetElapsedTime(start).TotalSeconds < _options.Seconds; i++)
        {
            ApplyResult result = _patcher.Switch(backends[i % 3]);
            ApplyResult nothing = _patcher.Switch(backends[i % 3]);
            ApplyResult linked = default;
            if (_options.Links)
            {
                linked = _patcher.Link(wishes[..(_options.Batch == 0 ? wishes.Length : _options.Batch)]);
                _patcher.Unlink(SiteScope.Sites(sites));
            }

            if (i > 300)
            {
                times[i % 3].Add(result.Elapsed.TotalNanoseconds / result.Written);
                again.Add(nothing.Elapsed.TotalNanoseconds / nothing.Count);
                links.Add(!_options.Links ? 0 : linked.Elapsed.TotalNanoseconds / linked.Written);
            }

            Pause();
        }

        _stop = true;
        _threads.ForEach(static t => t.Join());
        again.Sort();
        Console.WriteLine($"{_options.Sites} already there: least {again[0]:0.0} ns/site, median {again[again.Count / 2]:0.0} ns/site");
        for (int i = 0; i < 3; i++)
        {
            times[i].Sort();
            Console.WriteLine(
                $"{_options.Sites} to {backends[i]}: least {times[i][0]:0.0} ns/site, median {times[i][times[i].Count / 2]:0.0} "
                + $"ns/site, {times[i].Count} batches of 256");
        }

        if (_options.Links)
        {
            links.Sort();
            Console.WriteLine(
                $"{_options.Sites} linked: least {links[0]:0.0} ns/site, median {links[links.Count / 2]:0.0} ns/site, batches of "
                + $"{(_options.Batch == 0 ? wishes.Length : _options.Batch)}");
        }

        return _fault is null ? 0 : 2;
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _code.Dispose();
    }

    private long Switch(Backend backend, LiveSite[] sites, Random random)
    {
        if (_options.Batch == 0)
        {
            return _patcher.Switch(backend, options: new SwitchOptions { OverridesLinks = random.Next(2) == 0 }).Written;
        }

        return _patcher.Switch(backend, SiteScope.Sites(Some(sites, random))).Written;
    }

    private long Link(LiveSite[] sites, Random random) => _patcher.Link([.. (_options.Batch == 0 ? sites : Some(sites, random)).Select(s =>
    {
        (VirtualAddress target, RegisterSet destroys) = _code.Targets[random.Next(_code.Targets.Count)];
        return new SiteLink(s, random.Next(8) == 0 ? null : target, destroys);
    })]).Written;

    private LiveSite[] Some(LiveSite[] sites, Random random)
    {
        var some = new LiveSite[_options.Batch];
        for (int i = 0; i < some.Length; i++)
        {
            some[i] = sites[random.Next(sites.Length)];
        }

        return some;
    }

    private void Start(int number)
    {
        var thread = new Thread(() => Run(number)) { IsBackground = true };
        _threads.Add(thread);
        thread.Start();
    }

    private void Run(int number)
    {
        using Executor executor = _code.Arena.RegisterExecutor($"executor {number}");
        fixed (long* counts = _counts[number])
        {
            for (int i = number; !_stop; i++)
            {
                int function = i % _code.Entries.Count;
                executor.Enter();
                long failed = _options.Suppress ? Suppressed(_code.Entries[function], counts) : Ordinary(_code.Entries[function], counts);
                executor.Leave();
                if (failed != 0)
                {
                    _fault = $"function {function}, site {failed - 1}: {_code.Blocks[function][(int)failed - 1]}";
                    return;
                }
            }
        }
    }

    private static long Ordinary(VirtualAddress function, long* counts) =>
        ((delegate* unmanaged<long*, long, long>)function.Value)(counts, TortureCode.Loops);

    private static long Suppressed(VirtualAddress function, long* counts) =>
        ((delegate* unmanaged[SuppressGCTransition]<long*, long, long>)function.Value)(counts, TortureCode.Loops);

    private void Collect()
    {
        while (!_stop)
        {
            GC.Collect();
            Thread.Sleep(1);
        }
    }

    private void Pause()
    {
        if (_options.PauseMicroseconds > 0)
        {
            long start = Stopwatch.GetTimestamp();
            while (Stopwatch.GetElapsedTime(start).TotalMicroseconds < _options.PauseMicroseconds)
            {
                Thread.SpinWait(20);
            }
        }
    }

    private bool IsTime(double seconds) => seconds < _options.Seconds
        || (_options.Protocol == Protocol.Library && seconds < Patience + _options.Seconds && !AllSeen(Seen()));

    private long[] Seen() => [.. Enumerable.Range(0, TortureCode.Results).Select(i => _counts.Sum(c => Volatile.Read(ref c[i])))];

    /// <summary>Whether the sites were seen in every form, or the run proves nothing.</summary>
    private bool AllSeen(long[] seen) => seen.Take(_options.Links ? 4 : 3).All(static n => n > 0);

    private int Report(long flips, long batches, TimeSpan time)
    {
        long[] seen = Seen();
        Console.WriteLine(
            $"sites={_options.Sites} protocol={_options.Protocol} seconds={time.TotalSeconds:0.0} batches={batches} flips={flips} "
            + $"executions={seen.Sum()} seen={string.Join('/', seen)}");
        if (_fault is not null)
        {
            Console.WriteLine($"FAULT {_fault}");
            return 2;
        }

        if (!_options.Links && seen[3] != 0)
        {
            Console.WriteLine("FAULT a site did what no backend does");
            return 2;
        }

        bool all = AllSeen(seen) || _options.Protocol != Protocol.Library;
        Console.WriteLine(all ? "OK" : "NOT ALL BACKENDS SEEN");
        return all ? 0 : 3;
    }
}
