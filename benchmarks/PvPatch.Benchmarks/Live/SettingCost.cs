using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// What it costs to change keys while a thread runs code of the arena, though not at their sites: a thousand keys of one site each in one batch, and one at a time; and ten thousand keys
/// of ten sites: time and memory.
/// </summary>
internal static unsafe class SettingCost
{
    private const int FewKeys = 1_000;
    private const int ManyKeys = 10_000;
    private const int SitesOfEach = 10;
    private const int KeysInBlock = 100;
    private const int WarmUpRounds = 1_000;

    public static void Run(int rounds, Goals goals)
    {
        Console.WriteLine();
        Console.WriteLine($"{"keys, ns a site",-36}{"min",10}{"median",10}{"times",8}");
        Alone(rounds, goals);
        Many();
    }

    private static void Alone(int rounds, Goals goals)
    {
        using var arena = CodeArena.Reserve(size: 16 << 20);
        using var patcher = new LivePatcher(arena);
        StaticKey[] keys = [.. Enumerable.Range(0, FewKeys).Select(static i => new StaticKey($"k{i}"))];
        foreach (StaticKey[] some in keys.Chunk(KeysInBlock))
        {
            Emit(arena, some, 1);
        }

        bool stop = false;
        CodeBlock other = Emit(arena, [new StaticKey("other")], KeysInBlock); // what runs costs a batch its barriers, not its sites
        var runner = new Thread(() => Execute(arena, other, ref stop));
        runner.Start();
        var batch = new List<double>();
        var alone = new List<double>();
        Action<LiveChanges> on = c => Array.ForEach(keys, k => c.Enable(k));
        Action<LiveChanges> off = c => Array.ForEach(keys, k => c.Disable(k));
        for (int round = -WarmUpRounds; round < rounds; round++)
        {
            if (round is -WarmUpRounds / 2 or 0)
            {
                Thread.Sleep(500); // the compiler's later tiers are made in the background
            }

            long start = Stopwatch.GetTimestamp();
            int written = patcher.Apply(round % 2 == 0 ? on : off).Written;
            double together = Stopwatch.GetElapsedTime(start).TotalNanoseconds / FewKeys;
            Figures.Check("keys in a batch", written, FewKeys);
            StaticKey key = keys[(round + WarmUpRounds) % FewKeys];
            start = Stopwatch.GetTimestamp();
            written = (key.IsEnabled ? patcher.Disable(key) : patcher.Enable(key)).Written;
            double single = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
            Figures.Check("a key alone", written, 1);
            _ = key.IsEnabled ? patcher.Disable(key) : patcher.Enable(key);
            if (round >= 0)
            {
                batch.Add(together);
                alone.Add(single);
            }
        }

        Volatile.Write(ref stop, true);
        runner.Join();
        Print($"{FewKeys} keys in a batch", batch);
        Print("one at a time", alone);
        goals.AtLeast("keys one at a time to a batch, minima", 100, alone.Min() / batch.Min());
        goals.AtLeast("keys one at a time to a batch, medians", 100, Figures.Median(alone) / Figures.Median(batch));
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

    private static void Execute(CodeArena arena, CodeBlock block, ref bool stop)
    {
        using Executor executor = arena.RegisterExecutor();
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
