using System.Diagnostics;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.LiveTorture;

/// <summary>
/// Executors run functions of <see cref="SettingCode"/> while one thread changes keys, branches, calls and a backend, all in one batch, and
/// now and then puts a new function in the place of one. Protocols other than the library's: a byte-wise copy, a label left out, a key told
/// to be changed before the batch with its barrier is over.
/// </summary>
internal sealed unsafe class TortureSettings : IDisposable
{
    private const int Functions = 6;
    private const int RenewEvery = 64; // batches

    private readonly TortureOptions _options;
    private readonly SettingCode _code;
    private readonly LivePatcher _patcher;
    private readonly CodeBlock[] _blocks;
    private readonly Random _random;
    private readonly long[] _words; // pinned: what each setting was told to be
    private readonly long[] _values;
    private readonly long[][] _counts; // pinned, of each executor
    // Sites of the first key, for the byte-wise copy.
    private readonly List<(nint At, int Length, SiteBytes Off, SiteBytes On)> _stored = [];

    private readonly int[] _rounds; // of each executor
    private long _sequence;
    private volatile bool _stop;
    private volatile string? _fault;

    public TortureSettings(TortureOptions options)
    {
        _options = options;
        _code = new SettingCode(options);
        _patcher = new LivePatcher(_code.Arena, _code.Layout);
        _random = new Random(unchecked(options.Seed + 1));
        _patcher.Switch(_code.Backends[0]);
        _blocks = [.. Enumerable.Range(0, Functions).Select(_ => _code.Emit())];
        _patcher.Bind(_blocks);
        _words = GC.AllocateArray<long>(_code.WordCount, pinned: true);
        _values = new long[_code.WordCount];
        _counts = [.. Enumerable.Range(0, options.Executors)
            .Select(static _ => GC.AllocateArray<long>(SettingCode.Counts + 1, pinned: true))];
        _rounds = new int[options.Executors];
        Note(backend: 0);
        bool[] all = new bool[_words.Length];
        Array.Fill(all, true);
        Tell(all, inMotion: false);
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
        while (_fault is null && IsTime(Stopwatch.GetElapsedTime(start).TotalSeconds))
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
        return Report(flips, batches, Stopwatch.GetElapsedTime(start));
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _code.Dispose();
    }

    /// <summary>One batch: some settings, or the number of them asked for.</summary>
    private long Change()
    {
        int backend = (int)_values[_code.OpWord] - 1;
        bool[] chosen = Choose();
        Action<LiveChanges> changes = c =>
        {
            for (int i = 0; i < _code.Keys.Length; i++)
            {
                _ = !chosen[i] ? c : _code.Keys[i].IsEnabled ? c.Disable(_code.Keys[i]) : c.Enable(_code.Keys[i]);
            }

            for (int i = 0; i < _code.Branches.Length && chosen[_code.BranchWord + i]; i++)
            {
                int way = _random.Next(-1, SettingCode.Ways);
                c.Set(_code.Branches[i], way < 0 ? null : way);
            }

            for (int i = 0; i < _code.Calls.Length && chosen[_code.CallWord + i]; i++)
            {
                int target = _random.Next(-2, _code.Targets.Length);
                _ = target == -1 ? c.ReturnZero(_code.Calls[i])
                    : c.Target(_code.Calls[i], target < 0 ? null : _code.Targets[target]);
            }

            if (chosen[_code.ConstantWord])
            {
                c.Set(_code.Constant, _random.Next(SettingCode.ConstantValues));
            }

            if (chosen[_code.OpWord])
            {
                backend = _random.Next(_code.Backends.Length);
                c.Use(_code.Backends[backend]);
            }
        };
        if (_options.Protocol == Protocol.ToldEarly)
        {
            ToldEarly(chosen);
        }
        else
        {
            Tell(chosen, inMotion: true);
        }

        ApplyResult result = _patcher.Apply(changes);
        Note(backend);
        Tell(chosen, inMotion: false);
        return result.Written;
    }

    private bool[] Choose()
    {
        bool[] chosen = new bool[_code.WordCount];
        for (int i = 0; i < chosen.Length; i++)
        {
            chosen[i] = _options.Batch == 0 && _random.Next(3) != 0;
        }

        for (int i = 0; i < _options.Batch; i++)
        {
            chosen[_random.Next(chosen.Length)] = true;
        }

        for (int i = 0; i < _code.Keys.Length / 2; i++)
        {
            chosen[_code.PairWord + i] = chosen[2 * i] || chosen[2 * i + 1];
        }

        return chosen;
    }

    /// <summary>As a host would that takes its wish for the deed: keys are said to be what the batch is yet to make them.</summary>
    private void ToldEarly(bool[] chosen)
    {
        Array.Clear(chosen, _code.BranchWord, chosen.Length - _code.BranchWord);
        for (int i = 0; i < _code.Keys.Length; i++)
        {
            _values[i] ^= chosen[i] ? 1 : 0;
        }

        NotePairs();
        Tell(chosen, inMotion: false);
    }

    /// <summary>
    /// Puts a new function in the place of one. Sites of a retired block are not written any more: whoever is still inside does what the
    /// settings were then, so nothing is changed until all have left it.
    /// </summary>
    private void Renew()
    {
        int index = _random.Next(Functions);
        CodeBlock old = _blocks[index];
        CodeBlock made = _code.Emit();
        _patcher.Bind(made);
        Volatile.Write(ref _blocks[index], made);
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

    /// <summary>What the settings are now.</summary>
    private void Note(int backend)
    {
        for (int i = 0; i < _code.Keys.Length; i++)
        {
            _values[i] = _code.Keys[i].IsEnabled ? 1 : 0;
        }

        NotePairs();
        for (int i = 0; i < _code.Branches.Length; i++)
        {
            _values[_code.BranchWord + i] = _code.Branches[i].Way + 1 ?? 0;
        }

        for (int i = 0; i < _code.Calls.Length; i++)
        {
            _values[_code.CallWord + i] = _code.Calls[i].ReturnsZero ? 0
                : _code.Calls[i].Target is VirtualAddress target ? Array.IndexOf(_code.Targets, target) + 1 : SettingCode.Nothing;
        }

        _values[_code.OpWord] = backend + 1;
        _values[_code.ConstantWord] = _code.Constant.Value;
    }

    private void NotePairs()
    {
        for (int i = 0; i < _code.Keys.Length / 2; i++)
        {
            _values[_code.PairWord + i] = _values[2 * i] | _values[2 * i + 1] << 1;
        }
    }

    private void Tell(bool[] chosen, bool inMotion)
    {
        _sequence++;
        for (int i = 0; i < _words.Length; i++)
        {
            if (chosen[i])
            {
                Volatile.Write(ref _words[i], _sequence << 16 | (inMotion ? SettingCode.InMotion : 0) | _values[i]);
            }
        }

        Interlocked.MemoryBarrier(); // before the first store to a site
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
        bool[] chosen = new bool[_words.Length];
        chosen[0] = chosen[_code.PairWord] = true;
        Tell(chosen, inMotion: true);
        foreach ((nint at, int length, SiteBytes off, SiteBytes made) in _stored)
        {
            SiteBytes bytes = on ? made : off;
            for (int i = 0; i < length; i++)
            {
                Volatile.Write(ref ((byte*)at)[i], (byte)(bytes.Low >> i * 8));
            }
        }

        _values[0] = on ? 1 : 0;
        NotePairs();
        Tell(chosen, inMotion: false);
        return _stored.Count;
    }

    private void Run(int number)
    {
        using Executor executor = _code.Arena.RegisterExecutor($"executor {number}");
        fixed (long* counts = _counts[number])
        fixed (long* words = _words)
        {
            for (int i = number; !_stop; i++)
            {
                executor.Enter();
                CodeBlock block = Volatile.Read(ref _blocks[i % Functions]);
                long failed = ((delegate* unmanaged<long*, long*, long>)block.Address.Value)(counts, words);
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

    /// <summary>Whether to go on. On a busy machine executors may not have come to every way in time; then a while longer.</summary>
    private bool IsTime(double seconds) => seconds < _options.Seconds
        || (_options.Protocol == Protocol.Library && seconds < 20 * _options.Seconds && !AllSeen(Seen()));

    private long[] Seen() => [.. Enumerable.Range(0, SettingCode.Counts).Select(i => _counts.Sum(c => Volatile.Read(ref c[i])))];

    /// <summary>Whether executors came to everything that sites can do, or the run proves nothing.</summary>
    private bool AllSeen(long[] seen) =>
        !(_code.Has(SiteKind.Keys) && seen.AsSpan(SettingCode.KeyCounts..SettingCode.BranchCounts).Contains(0))
            && !(_code.Has(SiteKind.Branches) && seen.AsSpan(SettingCode.BranchCounts..SettingCode.CallCounts).Contains(0))
            && !(_code.Has(SiteKind.Calls) && Enumerable.Range(0, SettingCode.Nothing + 1).Any(
                r => (r is <= 3 or SettingCode.Nothing) && seen[SettingCode.CallCounts + r] == 0))
            && !(_code.Has(SiteKind.Settings) && seen.AsSpan((SettingCode.OpCounts + 1)..SettingCode.ConstantCounts).Contains(0))
            && !(_code.Has(SiteKind.Constants) && seen.AsSpan(SettingCode.ConstantCounts..SettingCode.VariantCounts).Contains(0))
            && !(_code.Has(SiteKind.Variants) && seen.AsSpan((SettingCode.VariantCounts + 1)..SettingCode.Counts).Contains(0));

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

        bool all = AllSeen(seen);
        Console.WriteLine(all || _options.Protocol != Protocol.Library ? "OK" : "NOT ALL SEEN");
        return all || _options.Protocol != Protocol.Library ? 0 : 3;
    }
}
