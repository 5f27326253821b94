using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>What a batch takes that switches one entry, 512 sites, 256 vectors, or the table they are in; nobody runs them.</summary>
internal static class WholeSwitches
{
    private const int Sites = 512;
    private const int Vectors = 256;
    private const int Far = 0x400;
    private const int WarmUpRounds = 40;
    private const int SwitchesInTurn = 50;

    public static void Run(int rounds)
    {
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op", convention: CallConvention.CalleeSave)));
        OpsLayout vectors = OpsLayout.Create(static b => b.Table("v", static t =>
        {
            for (int i = 0; i < Vectors; i++)
            {
                t.Slot($"{i}", SlotKind.Jump);
            }
        }));
        using CodeArena arena = CodeArena.Reserve(size: 16 << 20);
        using var patcher = new LivePatcher(arena, layout);
        using var tables = new LivePatcher(arena, vectors);
        Action<Assembler>[] loads = [static a => a.mov(eax, __dword_ptr[rdi + Far]), static a => a.mov(ecx, __dword_ptr[rdi + Far])];
        Backend[] backends = [.. loads.Select((load, i) => Backend.Create($"{i}", layout, b => b.Inline("t.op", load)))];
        CodeBlock sites = SiteFunction.Emit(arena, layout, Sites, (a, s) => s.Emit(
            a, layout[0], 7, RegisterSet.Rax | RegisterSet.Rcx, SitePlacement.InsideAligned8));
        CodeBlock[] copies = [.. loads.Select(load => SiteFunction.Emit(arena, layout, Sites, (a, _) => load(a)))];
        Backend[] handlers = [.. copies.Select((copy, n) => Backend.Create($"{n}", vectors, b =>
        {
            for (int i = 0; i < Vectors; i++)
            {
                b.Jump($"v.{i}", copy.Address);
            }
        }))];
        var entry = new StaticCall("entry");
        var table = new CodeConstant("table");
        var asm = new Assembler(64);
        var emitter = new SiteEmitter(layout);
        emitter.Entry(asm, entry);
        emitter.Constant(asm, table, static a => a.mov(rax, 0L));
        asm.ret();
        _ = arena.Emit(asm, emitter);
        patcher.Switch(backends[0]);
        tables.Switch(handlers[0]);
        var ways = new (string Name, int Stores, Func<int, ApplyResult> Run)[]
        {
            ("one entry", 1, n => patcher.Apply(c => c.Target(entry, copies[n].Address))),
            ("one table, by its constant", 1, n => patcher.Apply(c => c.Set(table, (long)copies[n].Address.Value))),
            ("256 vectors", 0, n => tables.Switch(handlers[n])),
            ("512 sites", Sites, n => patcher.Switch(backends[n])),
        };
        double[] least = [.. ways.Select(static _ => double.MaxValue)];
        for (int round = -WarmUpRounds; round < rounds; round++)
        {
            for (int i = 0; i < ways.Length; i++)
            {
                for (int n = 0; n < SwitchesInTurn; n++)
                {
                    long start = Stopwatch.GetTimestamp();
                    ApplyResult result = ways[i].Run((n + 1) & 1);
                    least[i] = Math.Min(least[i], Stopwatch.GetElapsedTime(start).TotalMicroseconds);
                    Figures.Check(ways[i].Name, result.Written, n == 0 && round == -WarmUpRounds ? result.Written : ways[i].Stores);
                }
            }
        }

        Console.WriteLine();
        Console.WriteLine($"{"a batch while nobody runs the code",-42}{"min us",10}{"ratio",10}");
        for (int i = 0; i < ways.Length; i++)
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{ways[i].Name,-42}{least[i],10:0.00}{least[i] / least[0],10:0.00}"));
        }

        Console.WriteLine($"code: {sites.Length} bytes with sites, {copies[0].Length} + {copies[1].Length} compiled twice");
    }
}
