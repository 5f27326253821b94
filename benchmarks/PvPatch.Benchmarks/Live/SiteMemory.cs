using System.Globalization;
using System.Runtime.CompilerServices;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>What 100,000 live sites keep alive beyond their own code: on the heap, and in the arena beside the blocks.</summary>
internal static class SiteMemory
{
    private const int Sites = 100_000;
    private const int FewestOfGoal = 20; // in smaller blocks it is the blocks that are measured

    public static void Run(Goals goals)
    {
        Console.WriteLine();
        Console.WriteLine($"{"bytes a site, " + Sites + " sites",-36}{"emitted",10}{"switched",10}{"a result",10}{"arena",10}");
        foreach (int inBlock in new[] { 1, 5, 20, 100, 1000 })
        {
            Measure(inBlock, goals);
        }
    }

    private static void Measure(int inBlock, Goals goals)
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op", convention: CallConvention.CalleeSave)));
        using var arena = CodeArena.Reserve(size: 64 << 20);
        using var patcher = new LivePatcher(arena, layout);
        var one = Backend.Create("one", layout, b => b.Inline("t.op", static a => a.mov(eax, 1)));
        var two = Backend.Create("two", layout, b => b.Inline("t.op", static a => a.mov(eax, 2)));
        patcher.Switch(one);

        // Once before: what the arena and the patcher make on first use is no site's.
        Emit(arena, layout, inBlock);
        patcher.Switch(two);
        patcher.Switch(one);
        long arenaBefore = arena.Used;
        long before = GC.GetTotalMemory(forceFullCollection: true);
        long code = 0;
        for (int i = 0; i < Sites / inBlock; i++)
        {
            code += Emit(arena, layout, inBlock);
        }

        long emitted = GC.GetTotalMemory(forceFullCollection: true) - before;
        long withResult = SwitchAll(patcher, two, Sites + inBlock) - before;
        ApplyResult nothing = patcher.Switch(one, SiteScope.Sites());
        long switched = GC.GetTotalMemory(forceFullCollection: true) - before;
        GC.KeepAlive(nothing);
        long beside = arena.Used - arenaBefore - code;
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{"in blocks of " + inBlock,-36}{Each(emitted),10:0.0}{Each(switched),10:0.0}{Each(withResult - switched),10:0.0}"
                + $"{Each(beside),10:0.0}"));
        if (inBlock >= FewestOfGoal)
        {
            goals.Below($"bytes kept for a site, blocks of {inBlock}, emitted", 32, Each(emitted));
            goals.Below($"bytes kept for a site, blocks of {inBlock}, after a switch", 32, Each(switched));
        }
    }

    /// <summary>The heap while a switch's result is kept. A method of its own: nothing of the result is left in the caller's frame.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static long SwitchAll(LivePatcher patcher, Backend backend, int sites)
    {
        ApplyResult result = patcher.Switch(backend);
        Figures.Check("sites switched", result.Written, sites);
        long heap = GC.GetTotalMemory(forceFullCollection: true);
        GC.KeepAlive(result);
        return heap;
    }

    private static double Each(long bytes) => (double)bytes / Sites;

    /// <summary>Emits a block and forgets it; the arena keeps it. Its bytes of code.</summary>
    private static long Emit(CodeArena arena, OpsLayout layout, int sites)
    {
        OpSlot op = layout["t.op"];
        return SiteFunction.Emit(arena, layout, sites, (a, s) => s.Emit(a, op, clobbers: RegisterSet.Rax)).Length;
    }
}
