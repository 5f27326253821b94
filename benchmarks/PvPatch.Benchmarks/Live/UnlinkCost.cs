using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Benchmarks.Live;

/// <summary>What it costs to unlink the sites that lead into one block, by how many links there are in the arena.</summary>
internal static class UnlinkCost
{
    private const int Into = 10; // links into each block
    private const int WarmUpRounds = 1_000;

    public static void Run(int rounds, Goals goals)
    {
        Console.WriteLine();
        Console.WriteLine($"{"unlink one block of many, us",-36}{"min",10}{"median",10}{"all, ns a link",16}");
        double[] least = [.. new[] { 1_000, 10_000, 50_000 }.Select(links => Measure(links, rounds))];
        goals.AtMost("unlink a block among 50,000 links, to 1,000", 2, least[2] / least[0]);
        goals.AtMost("unlink a block among 10,000 links, to 1,000", 2, least[1] / least[0]);
    }

    private static double Measure(int links, int rounds)
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op", convention: CallConvention.CalleeSave)));
        using var arena = CodeArena.Reserve(size: 64 << 20);
        using var patcher = new LivePatcher(arena, layout);
        patcher.Switch(Backend.Create("none", layout, static b => b.Nop("t.op")));
        CodeBlock[] targets = [.. Enumerable.Range(0, links / Into).Select(_ => Target(arena))];
        CodeBlock sites = SiteFunction.Emit(arena, layout, links, (a, s) => s.Emit(a, layout[0], clobbers: RegisterSet.Rax));
        SiteLink[] all = [.. Enumerable.Range(0, links).Select(i => new SiteLink(sites[i], targets[i % targets.Length].Address, RegisterSet.Rax))];
        Figures.Check("linked", patcher.Link(all).Written, links);
        var times = new List<double>();
        for (int round = -WarmUpRounds; round < rounds; round++)
        {
            int index = (round + WarmUpRounds) % targets.Length;
            long start = Stopwatch.GetTimestamp();
            ApplyResult result = patcher.Unlink(SiteScope.LinkedInto(targets[index]));
            double time = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
            Figures.Check("unlinked", result.Written, Into);
            patcher.Link([.. Enumerable.Range(0, Into).Select(i => all[index + i * targets.Length])]);
            if (round >= 0)
            {
                times.Add(time);
            }
        }

        double each = double.MaxValue;
        for (int i = 0; i < 5; i++)
        {
            long begin = Stopwatch.GetTimestamp();
            Figures.Check("all unlinked", patcher.Unlink(SiteScope.LinkedInto(targets)).Written, links);
            each = Math.Min(each, Stopwatch.GetElapsedTime(begin).TotalNanoseconds / links);
            patcher.Link(all);
        }

        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{"among " + links + " links",-36}{times.Min(),10:0.00}{Figures.Median(times),10:0.00}{each,16:0.0}"));
        return times.Min();
    }

    private static CodeBlock Target(CodeArena arena)
    {
        var a = new Assembler(64);
        a.ret();
        return arena.Emit(a);
    }
}
