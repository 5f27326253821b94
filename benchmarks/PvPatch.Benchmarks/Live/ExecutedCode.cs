using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>What a site costs the code it stands in, for each form it can have, beside code written by hand and what C# offers.</summary>
internal sealed unsafe class ExecutedCode : IDisposable
{
    /// <summary>Sites executed in a turn: some tenths of a millisecond, well below the scheduler's slice.</summary>
    private const int InTurn = 1 << 18;

    /// <summary>
    /// Where the number is that sites load: far enough for a displacement of four bytes, so that the load fills a site of six.
    /// </summary>
    private const int Far = 0x400;

    private const int Value = 3;
    private const int WarmUpRounds = 20;

    /// <summary>
    /// How many copies of each function take turns: where code comes to lie decides much about big loops (pages, sets of the caches), and
    /// must not be taken for what it does.
    /// </summary>
    private const int Copies = 5;

    private static readonly int[] s_counts = [16, 512, 4096, 16384];

    private readonly int[] _data = GC.AllocateArray<int>(Far / sizeof(int) + 1, pinned: true);
    private readonly CodeArena _arena = CodeArena.Reserve(size: 256 << 20);
    private readonly OpsLayout _layout = OpsLayout.Create(b => b.Table("t", t =>
    {
        foreach (string name in (string[])["inline", "short", "nop", "direct", "indirect"])
        {
            t.Slot(name, convention: CallConvention.CalleeSave);
        }
    }));

    private readonly LivePatcher _patcher;
    private readonly VirtualAddress _callee;

    public ExecutedCode()
    {
        _data[0] = Value;
        _data[^1] = Value;
        _patcher = new LivePatcher(_arena, _layout);
        var a = new Assembler(64);
        a.mov(eax, __dword_ptr[rdi + Far]);
        a.ret();
        _callee = _arena.Emit(a, new SiteEmitter(_layout)).Address;
        _patcher.Switch(Backend.Create("measured", _layout, b => b
            .Inline("t.inline", static a => a.mov(eax, __dword_ptr[rdi + Far]))
            .Inline("t.short", static a => a.mov(eax, __dword_ptr[rdi]))
            .Nop("t.nop")
            .Call("t.direct", _callee, "callee", RegisterSet.Rax)
            .Call("t.indirect", _callee, "callee", RegisterSet.Rax)));
    }

    public void Run(int rounds, Goals goals)
    {
        foreach (int count in s_counts)
        {
            Compare(count, rounds, goals);
        }
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _arena.Dispose();
    }

    private void Compare(int count, int rounds, Goals goals)
    {
        Way[] ways = Ways(count);
        int loops = InTurn / count;
        fixed (int* data = _data)
        {
            foreach (Way way in ways)
            {
                for (int copy = 0; copy < way.Runs.Length; copy++)
                {
                    Figures.Check($"{way.Name}, {count} sites", way.Runs[copy](data, 1), count * (long)way.Expected);
                }
            }

            double[][] times = [.. ways.Select(_ => new double[rounds])];
            for (int round = -WarmUpRounds; round < rounds; round++)
            {
                for (int i = 0; i < ways.Length; i++)
                {
                    int way = (i + round + WarmUpRounds) % ways.Length;
                    Runner run = ways[way].Runs[(round + WarmUpRounds) % ways[way].Runs.Length];
                    _ = run(data, 1);
                    long start = Stopwatch.GetTimestamp();
                    long sum = run(data, loops);
                    double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / InTurn;
                    Figures.Check(ways[way].Name, sum, InTurn * (long)ways[way].Expected);
                    if (round >= 0)
                    {
                        times[way][round] = time;
                    }
                }
            }

            Report(count, ways, times);
            goals.AtMost($"inline, patched to by hand, {count} sites", 1.03, times[1].Min() / times[0].Min());
            goals.AtMost($"the same, inside 8 bytes, {count} sites", 1.03, times[2].Min() / times[0].Min());
        }
    }

    private static void Report(int count, Way[] ways, double[][] times)
    {
        Console.WriteLine();
        Console.WriteLine($"{count + " sites",-36}{"min ns",10}{"median",10}{"ratio: min",12}{"median",10}");
        for (int i = 0; i < ways.Length; i++)
        {
            double[] baseline = times[ways[i].Baseline];
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{ways[i].Name,-36}{times[i].Min(),10:0.000}{Figures.Median(times[i]),10:0.000}"
                    + $"{times[i].Min() / baseline.Min(),12:0.000}{Figures.MedianRatio(times[i], baseline),10:0.000}"));
        }
    }

    private Way[] Ways(int count)
    {
        var managed = new ManagedDispatch(count);
        return
        [
            Generated("inline by hand", count, static (a, _) => a.mov(eax, __dword_ptr[rdi + Far])),
            Patched("inline, patched", count, "t.inline", SitePlacement.WithinCacheLine),
            Patched("inline, patched, inside 8", count, "t.inline", SitePlacement.InsideAligned8),
            Generated("2-byte inline by hand", count, static (a, _) => a.mov(eax, __dword_ptr[rdi])),
            Patched("2-byte inline, patched (to by hand)", count, "t.short", SitePlacement.WithinCacheLine) with { Baseline = 3 },
            Generated("nothing there", count, static (_, _) => { }) with { Expected = SiteFunction.Untouched },
            Patched("nop, patched", count, "t.nop", SitePlacement.WithinCacheLine) with { Expected = SiteFunction.Untouched },
            Generated("direct call by hand", count, (a, _) => a.call(_callee.Value)),
            Patched("direct call, patched", count, "t.direct", SitePlacement.WithinCacheLine),
            Patched("indirect call, untouched", count, "t.indirect", SitePlacement.WithinCacheLine, bind: false),
            new Way("C# function pointer", [managed.FunctionPointer]),
            new Way("C# delegate", [managed.Delegate]),
            new Way("C# interface", [managed.Interface]),
        ];
    }

    private Way Patched(string name, int count, string slot, SitePlacement placement, bool bind = true)
    {
        CodeBlock[] blocks = Emit(count, (a, sites) => sites.Emit(a, _layout[slot], clobbers: RegisterSet.Rax, placement: placement));
        if (bind)
        {
            _patcher.Bind(blocks);
        }

        LiveForm form = slot switch { "t.direct" => LiveForm.Call, "t.indirect" => LiveForm.Original, _ => LiveForm.OneInstruction };
        foreach (CodeBlock block in blocks)
        {
            for (int i = 0; i < block.SiteCount; i++)
            {
                if (block[i].Form != form)
                {
                    throw new InvalidOperationException($"{name}: {block[i]}, expected {form}");
                }
            }
        }

        return new Way(name, [.. blocks.Select(RunnerOf)]);
    }

    private Way Generated(string name, int count, Action<Assembler, SiteEmitter> body) =>
        new(name, [.. Emit(count, body).Select(RunnerOf)]);

    private CodeBlock[] Emit(int count, Action<Assembler, SiteEmitter> body) =>
        [.. Enumerable.Range(0, Copies).Select(_ => SiteFunction.Emit(_arena, _layout, count, body))];

    private static Runner RunnerOf(CodeBlock block) => (data, loops) => SiteFunction.Run(block.Address, data, loops);

    internal delegate long Runner(int* data, long loops);

    private sealed record Way(string Name, Runner[] Runs)
    {
        /// <summary>What each site adds to the sum.</summary>
        public int Expected { get; init; } = Value;

        /// <summary>Which way it is compared with.</summary>
        public int Baseline { get; init; }
    }
}
