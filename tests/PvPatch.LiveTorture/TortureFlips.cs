using System.Diagnostics;
using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.LiveTorture;

/// <summary>
/// Counts: sites of keys, some ten thousand, are changed in batches of thousands as often as asked for, while executors run and check
/// them. Every batch must have written exactly the sites whose keys it changed; at the end the keys' counts must be what they were, and the
/// code what was emitted.
/// </summary>
internal sealed unsafe class TortureFlips : IDisposable
{
    private const int KeyCount = 1_000;
    private const int Functions = 834; // of 12 sites: ten thousand

    private const int Patience = 100; // times as many, where no executor has come to run by then

    private readonly TortureOptions _options;
    private readonly SettingCode _code;
    private readonly LivePatcher _patcher;
    private readonly CodeBlock[] _blocks;
    private readonly SettingWords _words;
    private readonly int[] _alone = new int[KeyCount]; // sites of one key
    private readonly int[] _paired = new int[KeyCount / 2]; // sites of a key and the next
    private readonly long[][] _counts; // pinned, of each executor
    private volatile bool _stop;
    private volatile string? _fault;

    public TortureFlips(TortureOptions options)
    {
        _options = options with { Sites = SiteKind.Keys };
        _code = new SettingCode(_options, KeyCount, size: 64 << 20);
        _patcher = new LivePatcher(_code.Arena, _code.Backends.Layout);
        _patcher.Switch(_code.Backends.All[0]);
        _blocks = [.. Enumerable.Range(0, Functions).Select(_ => _code.Emit(_code.WordCount))];
        _words = new SettingWords(_code.WordCount);
        _counts = [.. Enumerable.Range(0, options.Executors)
            .Select(static _ => GC.AllocateArray<long>(SettingCounts.Length, pinned: true))];
        foreach (LiveSite site in _blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i])))
        {
            int key = Array.IndexOf(_code.Keys, site.Settings[0]);
            _ = site.Settings.Count == 1 ? _alone[key]++ : _paired[key / 2]++;
        }
    }

    private long Executions => _counts.Sum(static c => Enumerable.Range(0, SettingCounts.Branch).Sum(i => Volatile.Read(ref c[i])));

    /// <summary>Changes as many sites as asked for, and some; the exit code.</summary>
    public int Execute()
    {
        var random = new Random(unchecked(_options.Seed + 1));
        byte[] before = [.. _blocks.SelectMany(static b => b.ToArray())];
        Tell([.. Enumerable.Repeat(true, KeyCount)], inMotion: false);
        Thread[] threads = [.. Enumerable.Range(0, _options.Executors).Select(n => new Thread(() => Run(n)) { IsBackground = true })];
        Array.ForEach(threads, static t => t.Start());
        long start = Stopwatch.GetTimestamp();
        (long flips, long batches) = (0, 0);
        while (_fault is null && (flips < _options.Flips || (flips < Patience * _options.Flips && Executions == 0)))
        {
            flips += Change(Choose(random, batches));
            batches++;
        }

        // Back to what it was: only some keys are not.
        flips += Change([.. _code.Keys.Select(static (k, i) => k.IsEnabled != (i == 3))]);
        TimeSpan time = Stopwatch.GetElapsedTime(start);
        _stop = true;
        Array.ForEach(threads, static t => t.Join());
        return Report(flips, batches + 1, time, before);
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _code.Dispose();
    }

    /// <summary>All keys; every fourth time a quarter of them.</summary>
    private static bool[] Choose(Random random, long batch)
    {
        bool[] chosen = new bool[KeyCount];
        int of = batch % 4 == 0 ? 4 : 1;
        for (int i = 0; i < KeyCount; i++)
        {
            chosen[i] = random.Next(of) == 0;
        }

        return chosen;
    }

    private int Change(bool[] chosen)
    {
        int expected = 0;
        for (int i = 0; i < KeyCount; i++)
        {
            expected += chosen[i] ? _alone[i] : 0;
            expected += i % 2 == 0 && (chosen[i] || chosen[i + 1]) ? _paired[i / 2] : 0;
        }

        Tell(chosen, inMotion: true);
        ApplyResult result = _patcher.Apply(c =>
        {
            for (int i = 0; i < KeyCount; i++)
            {
                StaticKey key = _code.Keys[i];
                _ = !chosen[i] ? c : key.IsEnabled ? c.Disable(key) : c.Enable(key);
            }
        });
        Tell(chosen, inMotion: false);
        if (result.Written != expected || result.Count != expected)
        {
            _fault ??= $"{result.Written} of {result.Count} sites were written, not {expected}";
        }

        return result.Written;
    }

    private void Tell(bool[] keys, bool inMotion)
    {
        bool[] chosen = new bool[_code.BranchWord];
        for (int i = 0; i < KeyCount; i++)
        {
            int pair = _code.PairWord + i / 2;
            chosen[i] = keys[i];
            chosen[pair] |= keys[i];
            _words.Values[i] = _code.Keys[i].IsEnabled ? 1 : 0;
            _words.Values[pair] = i % 2 == 0 ? _words.Values[i] : _words.Values[pair] | _words.Values[i] << 1;
        }

        _words.Tell(chosen, inMotion);
    }

    private void Run(int number)
    {
        using Executor executor = _code.Arena.RegisterExecutor($"executor {number}", _code.Backends.Words);
        fixed (long* counts = _counts[number])
        fixed (long* words = _words.All)
        {
            for (int i = number; !_stop; i++)
            {
                executor.Enter();
                long failed = ((delegate* unmanaged<long*, long*, long>)_blocks[i % Functions].Address.Value)(counts, words);
                executor.Leave();
                if (failed != 0)
                {
                    _fault = $"function {i % Functions}, check {failed}: {_blocks[i % Functions][(int)failed - 1]}";
                    return;
                }
            }
        }
    }

    private int Report(long flips, long batches, TimeSpan time, byte[] before)
    {
        bool counted = _code.Keys.Select(static (k, i) => k.Count == (i == 3 ? 1 : 0)).All(static c => c);
        bool same = _blocks.SelectMany(static b => b.ToArray()).SequenceEqual(before);
        _fault ??= !counted ? "a key's count is not what it was" : !same ? "the code is not what was emitted" : null;
        Console.WriteLine(
            $"flips={flips} in batches={batches} of sites={_blocks.Sum(static b => b.SiteCount)} seconds={time.TotalSeconds:0.0} "
            + $"ns a flip={time.TotalNanoseconds / flips:0.0} executions={Executions} "
            + $"checked={_counts.Sum(static c => c[SettingCounts.Checked])}");
        Console.WriteLine(_fault is not null ? $"FAULT {_fault}" : Executions == 0 ? "NOTHING SEEN" : "OK");
        return _fault is not null ? 2 : Executions == 0 ? 3 : 0;
    }
}
