using System.Diagnostics;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.LiveTorture;

/// <summary>
/// Executors run functions of <see cref="SettingCode"/> while one thread changes keys, branches, calls, entries and a backend, all in one
/// batch, and now and then puts a new function in the place of one. Protocols other than the library's: a byte-wise copy, something of the
/// code left out or wrong, a key or a link told to be changed before the batch with its barrier is over.
/// </summary>
internal sealed unsafe class TortureSettings : IDisposable
{
    private const int Functions = 6;
    private const int RenewEvery = 64; // batches
    private const int SafepointEvery = 4; // runs

    private static readonly SwitchOptions s_options = new() { WaitForOther = true }; // links are made at executors' safepoints too

    private readonly TortureOptions _options;
    private readonly SettingCode _code;
    private readonly LivePatcher _patcher;
    private readonly CodeBlock[] _blocks;
    private readonly Random _random;
    private readonly SettingWords _words;
    private readonly SettingChanges _changes;
    private readonly AskedLinks _asked;
    private readonly long[][] _counts; // pinned, of each executor
    // Sites of the first key, for the byte-wise copy.
    private readonly List<(nint At, int Length, SiteBytes Off, SiteBytes On)> _stored = [];

    private readonly int[] _rounds; // of each executor
    private long _othersWords;
    private volatile bool _stop;
    private volatile string? _fault;

    public TortureSettings(TortureOptions options)
    {
        _options = options;
        _code = new SettingCode(options);
        _patcher = new LivePatcher(_code.Arena, _code.Backends.Layout);
        _random = new Random(unchecked(options.Seed + 2));
        _patcher.Apply(c => c.Use(_code.Backends.All[0]).Set(_code.Table, (long)_code.Tables[0].Value));
        _words = new SettingWords(_code.WordCount + AskedLinks.WordCount(Functions));
        _changes = new SettingChanges(_code, options, _words);
        _asked = new AskedLinks(
            _code.Arena, _patcher, _words, _code.WordCount, Functions, _code.LinkTargets, options.Protocol == Protocol.ToldEarly);
        _blocks = [.. Enumerable.Range(0, Functions).Select(Emit)];
        _counts = [.. Enumerable.Range(0, options.Executors)
            .Select(static _ => GC.AllocateArray<long>(SettingCounts.Length, pinned: true))];
        _rounds = new int[options.Executors];
        _changes.End([.. Enumerable.Repeat(true, _code.WordCount)]);
        if (options.Protocol == Protocol.ByteCopy)
        {
            Record();
        }
    }

    /// <summary>Runs to the end of the time; the exit code.</summary>
    public int Execute()
    {
        Thread[] threads = [.. Enumerable.Range(0, _options.Executors).Select(n => new Thread(() => Run(n)) { IsBackground = true })];
        Array.ForEach(threads, static t => t.Start());
        long start = Stopwatch.GetTimestamp();
        long flips = 0;
        long batches = 0;
        while (!IsFaulted() && IsTime(Stopwatch.GetElapsedTime(start).TotalSeconds))
        {
            flips += _stored.Count > 0 ? Store(on: batches % 2 == 0) : Change();
            if (_options.Protocol == Protocol.Library)
            {
                Thread.SpinWait(_random.Next(1000)); // what stands still is checked best
            }

            if (++batches % RenewEvery == 0 && _stored.Count == 0)
            {
                Renew();
            }
        }

        _stop = true;
        Array.ForEach(threads, static t => t.Join());
        _fault ??= _options.Protocol == Protocol.Library ? _asked.Finish() : null;
        return Report(flips, batches, Stopwatch.GetElapsedTime(start));
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _code.Dispose();
    }

    /// <summary>One batch.</summary>
    private long Change()
    {
        bool[] chosen = _changes.Choose();
        List<LiveSite> left = _asked.Leave(_random);
        _changes.Begin(chosen);
        ApplyResult result = _patcher.Apply(
            c =>
            {
                _changes.Change(c, chosen);
                _ = left.Count > 0 ? c.Unlink(SiteScope.Sites(left)) : c;
            },
            s_options);
        _asked.Settle();
        _changes.End(chosen);
        return result.Written;
    }

    private CodeBlock Emit(int function)
    {
        CodeBlock block = _code.Emit(_asked.Begin(function));
        _patcher.Bind(block);
        _asked.End(function, block);
        return block;
    }

    /// <summary>
    /// Puts a new function in the place of one. Sites of a retired block are not written any more: whoever is still inside does what the
    /// settings were then, so nothing is changed until all have left it.
    /// </summary>
    private void Renew()
    {
        int index = _random.Next(Functions);
        CodeBlock old = _blocks[index];
        Volatile.Write(ref _blocks[index], Emit(index));
        _code.Arena.Retire(old);
        int[] before = [.. _rounds];
        for (int i = 0; i < before.Length; i++)
        {
            while (_fault is null && Volatile.Read(ref _rounds[i]) == before[i])
            {
                Thread.Yield();
            }
        }
    }

    /// <summary>What the sites of the first key hold while it is off and while it is on.</summary>
    private void Record()
    {
        StaticKey key = _code.Keys[0];
        LiveSite[] sites = [.. _blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i]))
            .Where(s => s.Settings.Contains(key))];
        byte[][] off = [.. sites.Select(static s => s.ToArray())];
        _patcher.Enable(key);
        _stored.AddRange(sites.Select((s, i) => (
            (nint)_code.Arena.Memory.WriteView(s.Address), s.Budget, SiteBytes.From(off[i]), SiteBytes.From(s.ToArray()))));
        _patcher.Disable(key);
    }

    /// <summary>Changes the key's sites as one should not: byte by byte.</summary>
    private long Store(bool on)
    {
        bool[] chosen = new bool[_code.WordCount];
        chosen[0] = chosen[_code.PairWord] = true;
        _words.Tell(chosen, inMotion: true);
        foreach ((nint at, int length, SiteBytes off, SiteBytes made) in _stored)
        {
            SiteBytes bytes = on ? made : off;
            for (int i = 0; i < length; i++)
            {
                Volatile.Write(ref ((byte*)at)[i], (byte)(bytes.Low >> i * 8));
            }
        }

        _words.Values[0] = on ? 1 : 0;
        _changes.NotePairs();
        _words.Tell(chosen, inMotion: false);
        return _stored.Count;
    }

    private void Run(int number)
    {
        using Executor executor = _code.Arena.RegisterExecutor($"executor {number}", _code.Backends.Words);
        fixed (long* counts = _counts[number])
        fixed (long* words = _words.All)
        {
            Prepare(executor, number, counts);
            for (int i = number; !_stop; i++)
            {
                executor.Enter();
                CodeBlock block = Volatile.Read(ref _blocks[i % Functions]);
                long failed = ((delegate* unmanaged<long*, long*, long>)block.Address.Value)(counts, words);
                if (i % SafepointEvery == 0)
                {
                    executor.Safepoint(); // may make the links that were asked for
                }

                executor.Leave();
                Volatile.Write(ref _rounds[number], _rounds[number] + 1);
                if (failed != 0)
                {
                    _fault = $"function {i % Functions}, check {failed}";
                    return;
                }
            }
        }
    }

    /// <summary>Tells the code where the executor's words are and what they must hold.</summary>
    private void Prepare(Executor executor, int number, long* counts)
    {
        *(long*)executor.AddressOf(SettingBackends.Own).Value = counts[SettingCounts.Own] = (number + 1) << 20;
        long own = (long)executor.WordsAddress.Value;
        long first = Interlocked.CompareExchange(ref _othersWords, own, 0);
        counts[SettingCounts.WordsAddress] = _options.Protocol == Protocol.OtherWords && first != 0 ? first : own;
    }

    // Not "??=": what an executor notes between its read and its store would be lost, and the executor, which ends then, waited for for ever.
    private bool IsFaulted()
    {
        if (_asked.Fault is string fault)
        {
            Interlocked.CompareExchange(ref _fault, fault, null);
        }

        return _fault is not null;
    }

    /// <summary>Whether to go on. On a busy machine executors may not have come to every way in time; then a while longer.</summary>
    private bool IsTime(double seconds) => seconds < _options.Seconds
        || (_options.Protocol == Protocol.Library && seconds < TortureRun.Patience + _options.Seconds && !AllSeen(Seen()));

    private long[] Seen() => [.. Enumerable.Range(0, SettingCounts.Count).Select(Sum)];

    private long Sum(int count) => _counts.Sum(c => Volatile.Read(ref c[count]));

    /// <summary>Whether executors came to everything that sites can do, or the run proves nothing.</summary>
    private bool AllSeen(long[] seen)
    {
        return All(SiteKind.Keys, SettingCounts.Key, SettingCounts.Branch)
            && All(SiteKind.Branches, SettingCounts.Branch, SettingCounts.Call)
            && All(SiteKind.Calls, SettingCounts.Call, SettingCounts.Call + _code.Targets.Length + 1)
            && All(SiteKind.Calls, SettingCounts.Call + SettingCounts.Nothing, SettingCounts.Op)
            && All(SiteKind.Settings, SettingCounts.Op, SettingCounts.Constant)
            && All(SiteKind.Constants, SettingCounts.Constant, SettingCounts.Variant)
            && All(SiteKind.Variants, SettingCounts.Variant, SettingCounts.Argument)
            && All(SiteKind.Arguments, SettingCounts.Argument, SettingCounts.Operand)
            && All(SiteKind.Operands, SettingCounts.Operand, SettingCounts.Word)
            && All(SiteKind.Words, SettingCounts.Word, SettingCounts.Entry)
            && All(SiteKind.Entries, SettingCounts.Entry, SettingCounts.Request)
            && All(SiteKind.Requests, SettingCounts.Request, SettingCounts.Count)
            && (_asked.Total.Made > 0 || !_code.Has(SiteKind.Requests));

        bool All(SiteKind kind, int first, int end) => !_code.Has(kind) || !seen.AsSpan(first..end).Contains(0);
    }

    private int Report(long flips, long batches, TimeSpan time)
    {
        long[] seen = Seen();
        Console.WriteLine(
            $"sites={_options.Sites} protocol={_options.Protocol} seconds={time.TotalSeconds:0.0} batches={batches} flips={flips} "
            + $"executions={seen.Sum()} checked={Sum(SettingCounts.Checked)} "
            + $"links asked for={_asked.Total.Queued} made={_asked.Total.Made} words={(_code.WordsBehindRegister ? "rdx" : "gs")} "
            + $"seen={string.Join('/', seen)}");
        if (_fault is not null)
        {
            Console.WriteLine($"FAULT {_fault}");
            return 2;
        }

        bool all = AllSeen(seen);
        Console.WriteLine(all || _options.Protocol != Protocol.Library ? "OK" : "NOT ALL SEEN");
        return all || _options.Protocol != Protocol.Library ? 0 : 3;
    }
}
