using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The mode <c>callbacks</c>: what a call from generated code costs that keeps registers, flags and vector state, against the plain call.
/// All ways take turns within each round, and what is quoted is the ratio of the minima: a round is short enough to run undisturbed.
/// </summary>
internal sealed unsafe class CallbackSpeed : IDisposable
{
    private const long Loops = 4_000;

    private static long s_calls;

    private readonly List<(string Name, CodeArena Arena, CodeBlock Block)> _ways = [];

    private CallbackSpeed(bool native)
    {
        RegisterSet all = CallConvention.SysV.DestroyedBy(64);
        RegisterSet cheap = all.Except(RegisterSet.Vector);
        Add("direct call, everything allowed", native, all, all, default, null);
        Add("told the caller", native, all, all, default, 1);
        Add("keeps all but vector state", native, RegisterSet.None, cheap, default, null);
        foreach (VectorSave save in Saves())
        {
            Add($"keeps everything, {save.Form.ToString().ToLowerInvariant()}", native, RegisterSet.None, all, save, null);
        }

        Add("keeps everything, told the caller", native, RegisterSet.None, all, VectorSave.Current, 1);
    }

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 1_000;
        if (arguments is not [] && !(arguments is ["--rounds", string value]
            && int.TryParse(value, CultureInfo.InvariantCulture, out rounds) && rounds > 0))
        {
            Console.Error.WriteLine("usage: callbacks [--rounds N]");
            return 2;
        }

        foreach (bool native in (ReadOnlySpan<bool>)[true, false])
        {
            Console.WriteLine($"{(native ? "a function that returns" : "a C# method that counts its calls")}, {rounds} rounds");
            using var speed = new CallbackSpeed(native);
            speed.Measure(rounds, native);
        }

        return 0;
    }

    public void Dispose() => _ways.ForEach(static w => w.Arena.Dispose());

    private static IEnumerable<VectorSave> Saves()
    {
        VectorSave best = VectorSave.Current;
        if (best.Form == VectorSaveForm.Xsavec)
        {
            yield return best;
            yield return VectorSave.Of(static (leaf, subleaf) => (leaf, subleaf) == (0xd, 1) ? default : X86Base.CpuId(leaf, subleaf));
        }

        yield return new VectorSave(VectorSaveForm.Fxsave, 0, VectorSave.Header);
    }

    private void Measure(int rounds, bool native)
    {
        var times = new List<double>[_ways.Count];
        for (int i = 0; i < times.Length; i++)
        {
            times[i] = [];
        }

        for (int round = -10; round < rounds; round++)
        {
            for (int k = 0; k < _ways.Count; k++)
            {
                int way = (k + round + _ways.Count * 2) % _ways.Count;
                s_calls = 0;
                long start = Stopwatch.GetTimestamp();
                ((delegate* unmanaged<long, void>)_ways[way].Block.Address.Value)(Loops);
                double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / Loops;
                Figures.Check(_ways[way].Name, s_calls, native ? 0 : Loops);
                if (round >= 0)
                {
                    times[way].Add(time);
                }
            }
        }

        for (int i = 0; i < times.Length; i++)
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"  {_ways[i].Name,-36} {times[i].Min(),8:f2} ns   {times[i].Min() / times[0].Min(),6:f1} x"));
        }
    }

    private void Add(string name, bool native, RegisterSet allowed, RegisterSet destroys, VectorSave save, int? caller)
    {
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op"), CallConvention.SysV));
        CodeArena arena = CodeArena.Reserve(Method, 1 << 20, new ArenaOptions { VectorSave = save });
        using var patcher = new LivePatcher(arena, layout);
        var empty = new Assembler(64);
        empty.ret();
        Operation call = Operation.Call(native ? arena.Emit(empty).Address : Method, destroys: destroys);
        patcher.Switch(Backend.Create("call", layout, b => b.Set("t.op", caller is int at ? call.PassingCaller(at) : call)));

        // void f(long loops): a loop of one site.
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        Label loop = a.CreateLabel();
        a.push(rbx);
        a.mov(rbx, rdi);
        a.Label(ref loop);
        sites.Emit(a, layout[0], clobbers: allowed);
        a.dec(rbx);
        a.jnz(loop);
        a.pop(rbx);
        a.ret();
        CodeBlock block = arena.Emit(a, sites);
        patcher.Bind(block);
        _ways.Add((name, arena, block));
    }

    private static VirtualAddress Method => ManagedTarget.Of((delegate* unmanaged<void>)&Count);

    [UnmanagedCallersOnly]
    private static void Count() => s_calls++;
}
