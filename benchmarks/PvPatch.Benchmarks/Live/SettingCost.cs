using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// What it costs to change keys while a thread runs code of the arena, though not at their sites: a thousand keys of one site each in one
/// batch, and one at a time; and ten thousand keys of ten sites: time and memory. As in <see cref="SwitchCost"/>, times of the first count
/// only if the thread had a processor all along.
/// </summary>
internal static unsafe class SettingCost
{
    private const int FewKeys = 1_000;
    private const int ManyKeys = 10_000;
    private const int SitesOfEach = 10;
    private const int KeysInBlock = 100;
    private const int WarmUpRounds = 200;
    private const int BatchesInRound = 8; // on and off, on and off
    private const int InRow = 8; // keys one at a time under one reading of the clock
    private const int Enough = 20; // times that count: on a busy machine more rounds are made until there are so many

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(15);

    public static void Run(int rounds, Goals goals)
    {
        Console.WriteLine();
        Console.WriteLine($"{"keys, ns a site",-36}{"min",10}{"median",10}{"times",8}");
        Few(rounds, goals);
        Many();
    }

    private static void Few(int rounds, Goals goals)
    {
        using var arena = CodeArena.Reserve(size: 16 << 20);
        using var patcher = new LivePatcher(arena);
        StaticKey[] keys = [.. Enumerable.Range(0, FewKeys).Select(static i => new StaticKey($"k{i}"))];
        foreach (StaticKey[] some in keys.Chunk(KeysInBlock))
        {
            Emit(arena, some, 1);
        }

        bool stop = false;
        ThreadClock? thread = null;
        CodeBlock other = Emit(arena, [new StaticKey("other")], KeysInBlock); // what runs costs a batch its barriers, not its sites
        var runner = new Thread(() => Execute(arena, other, ref thread, ref stop));
        runner.Start();
        var batch = new List<double>();
        var alone = new List<double>();
        Action<LiveChanges> on = c => Array.ForEach(keys, k => c.Enable(k));
        Action<LiveChanges> off = c => Array.ForEach(keys, k => c.Disable(k));
        long began = Stopwatch.GetTimestamp();
        for (int round = -WarmUpRounds; round < rounds
            || (Math.Min(batch.Count, alone.Count) < Enough && Stopwatch.GetElapsedTime(began) < s_patience); round++)
        {
            if (round is -WarmUpRounds / 2 or 0)
            {
                Thread.Sleep(500); // the compiler's later tiers are made in the background
            }

            if (round >= 0)
            {
                Thread.Sleep(1); // a thread that has slept comes in at once, on a processor of its own if it can
            }

            for (int i = 0; i < BatchesInRound; i++)
            {
                var clock = new Undisturbed(Volatile.Read(ref thread));
                int written = patcher.Apply(i % 2 == 0 ? on : off).Written;
                bool counts = clock.Stop(out double time) && round >= 0;
                Figures.Check("keys in a batch", written, FewKeys);
                if (counts)
                {
                    batch.Add(time / FewKeys);
                }
            }

            Alone(patcher, keys, round, Volatile.Read(ref thread), alone);
        }

        Volatile.Write(ref stop, true);
        runner.Join();
        bool measured = batch.Count > 0 && alone.Count > 0;
        if (measured)
        {
            Print($"{FewKeys} keys in a batch", batch);
            Print("one at a time", alone);
        }

        goals.AtLeast("keys one at a time to a batch, minima", 100, measured ? alone.Min() / batch.Min() : null);
        goals.AtLeast("keys one at a time to a batch, medians", 100, measured ? Figures.Median(alone) / Figures.Median(batch) : null);
    }

    private static void Alone(LivePatcher patcher, StaticKey[] keys, int round, ThreadClock? thread, List<double> times)
    {
        int first = (round + WarmUpRounds) * InRow % keys.Length;
        int written = 0;
        var clock = new Undisturbed(thread);
        for (int i = 0; i < InRow; i++)
        {
            written += patcher.Enable(keys[first + i]).Written; // the batches end with all of them off
        }

        bool counts = clock.Stop(out double time) && round >= 0;
        Figures.Check("keys alone", written, InRow);
        patcher.Apply(c => Array.ForEach(keys[first..(first + InRow)], k => c.Disable(k)));
        if (counts)
        {
            times.Add(time / InRow);
        }
    }

    private static void Many()
    {
        const int Sites = ManyKeys * SitesOfEach;
        using var arena = CodeArena.Reserve(size: 64 << 20);
        using var patcher = new LivePatcher(arena);
        Emit(arena, [new StaticKey("first")], SitesOfEach);
        StaticKey[] keys = [.. Enumerable.Range(0, ManyKeys).Select(static i => new StaticKey($"k{i}"))];
        long before = GC.GetTotalMemory(forceFullCollection: true);
        long start = Stopwatch.GetTimestamp();
        foreach (StaticKey[] some in keys.Chunk(KeysInBlock))
        {
            Emit(arena, some, SitesOfEach);
        }

        double emit = Stopwatch.GetElapsedTime(start).TotalNanoseconds / Sites;
        double memory = (GC.GetTotalMemory(forceFullCollection: true) - before) / (double)Sites;
        var times = new List<double>();
        for (int i = 0; i < 20; i++)
        {
            Action<LiveChanges> all = i % 2 == 0 ? c => Array.ForEach(keys, k => c.Enable(k)) : c => Array.ForEach(keys, k => c.Disable(k));
            start = Stopwatch.GetTimestamp();
            ApplyResult result = patcher.Apply(all);
            times.Add(Stopwatch.GetElapsedTime(start).TotalNanoseconds / Sites);
            Figures.Check("sites of all keys", result.Written, Sites);
        }

        Print($"{ManyKeys} keys of {SitesOfEach} sites in a batch", times);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture, $"{"emitted, Iced included",-36}{emit,10:0.0}   heap {memory:0.0} bytes a site"));
        GC.KeepAlive(keys);
    }

    /// <summary>A function that comes to every key's sites, and goes on behind them either way.</summary>
    private static CodeBlock Emit(CodeArena arena, StaticKey[] keys, int sitesOfEach)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        for (int i = 0; i < sitesOfEach; i++)
        {
            foreach (StaticKey key in keys)
            {
                Label over = a.CreateLabel();
                sites.Branch(a, key, over);
                a.inc(eax);
                a.Label(ref over);
            }
        }

        a.ret();
        return arena.Emit(a, sites);
    }

    private static void Execute(CodeArena arena, CodeBlock block, ref ThreadClock? thread, ref bool stop)
    {
        using Executor executor = arena.RegisterExecutor();
        Volatile.Write(ref thread, new ThreadClock());
        while (!Volatile.Read(ref stop))
        {
            executor.Enter();
            ((delegate* unmanaged<void>)block.Address.Value)();
            executor.Leave();
        }
    }

    private static void Print(string what, List<double> times) => Console.WriteLine(string.Create(
        CultureInfo.InvariantCulture, $"{what,-36}{times.Min(),10:0.0}{Figures.Median(times),10:0.0}{times.Count,8}"));
}
