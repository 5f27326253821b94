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
        int[] counts = [1_000, 10_000, 50_000];
        _ = Measure(counts[0], Into, rounds); // what is compiled on first use is no link's
        (double One, double All)[] few = [.. counts.Select(links => Measure(links, Into, rounds))];
        (double One, double All)[] one = [.. counts.Select(links => Measure(links, links, rounds: 0))];
        Console.WriteLine();
        Console.WriteLine($"{"unlinking, least",-36}{"10 of all, us",16}{"all, ns a link",16}{"all of 1 block",16}");
        for (int i = 0; i < counts.Length; i++)
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{counts[i] + " links",-36}{few[i].One,16:0.00}{few[i].All,16:0.0}{one[i].All,16:0.0}"));
        }

        goals.AtMost("unlink a block among 50,000 links, to 1,000", 2, few[2].One / few[0].One);
        goals.AtMost("unlink a block of 50,000 links, a link, to 1,000", 2, one[2].All / one[0].All);
    }

    /// <summary>Least microseconds for a block, and nanoseconds a link for all blocks at once.</summary>
    private static (double One, double All) Measure(int links, int into, int rounds)
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op", convention: CallConvention.CalleeSave)));
        using var arena = CodeArena.Reserve(size: 64 << 20);
        using var patcher = new LivePatcher(arena, layout);
        patcher.Switch(Backend.Create("none", layout, static b => b.Nop("t.op")));
        CodeBlock[] targets = [.. Enumerable.Range(0, links / into).Select(_ => Target(arena))];
        CodeBlock sites = SiteFunction.Emit(arena, layout, links, (a, s) => s.Emit(a, layout[0], clobbers: RegisterSet.Rax));
        SiteLink[] all =
            [.. Enumerable.Range(0, links).Select(i => new SiteLink(sites[i], targets[i % targets.Length].Address, RegisterSet.Rax))];
        Figures.Check("linked", patcher.Link(all).Written, links);
        double one = double.MaxValue;
        for (int round = -WarmUpRounds; round < rounds && targets.Length > 1; round++)
        {
            int index = (round + WarmUpRounds) % targets.Length;
            long start = Stopwatch.GetTimestamp();
            ApplyResult result = patcher.Unlink(SiteScope.LinkedInto(targets[index]));
            double time = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
            Figures.Check("unlinked", result.Written, into);
            patcher.Link([.. Enumerable.Range(0, into).Select(i => all[index + i * targets.Length])]);
            one = round >= 0 ? Math.Min(one, time) : one;
        }

        double each = double.MaxValue;
        for (int i = 0; i < 10; i++)
        {
            long begin = Stopwatch.GetTimestamp();
            Figures.Check("all unlinked", patcher.Unlink(SiteScope.LinkedInto(targets)).Written, links);
            each = Math.Min(each, Stopwatch.GetElapsedTime(begin).TotalNanoseconds / links);
            patcher.Link(all);
        }

        return (one, each);
    }

    private static CodeBlock Target(CodeArena arena)
    {
        var a = new Assembler(64);
        a.ret();
        return arena.Emit(a);
    }
}
