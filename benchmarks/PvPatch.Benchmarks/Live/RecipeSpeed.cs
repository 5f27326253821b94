using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The mode <c>recipes</c>: whole implementations beside sites. What a block costs that is compiled once per backend, what an entry costs the
/// calls that go through it, what it takes to switch them, and what compiled C# has.
/// </summary>
internal sealed unsafe class RecipeSpeed : IDisposable
{
    private const int Sites = 512;
    private const int Loops = 512;
    private const int Copies = 3; // of each generated function: where one comes to lie must not decide
    private const int Elements = 1024;
    private const int ElementLoops = 256;
    private const int FewElements = 16;
    private const int Far = 0x400;
    private const int Value = 3;
    private const int WarmUpRounds = 40;

    private readonly int[] _data = GC.AllocateArray<int>(Elements, pinned: true);
    private readonly CodeArena _arena = CodeArena.Reserve(size: 64 << 20);
    private readonly OpsLayout _layout = OpsLayout.Create(static b => b
        .Table("t", static t =>
        {
            foreach (string name in (string[])["nothing", "load", "call"])
            {
                t.Slot(name, convention: CallConvention.CalleeSave);
            }
        }));

    private readonly LivePatcher _patcher;
    private readonly VirtualAddress _callee;

    private RecipeSpeed()
    {
        Array.Fill(_data, Value);
        _patcher = new LivePatcher(_arena, _layout);
        _callee = Callee(null);
        _patcher.Switch(Backend.Create("measured", _layout, b => b
            .Nop("t.nothing")
            .Inline("t.load", Load)
            .Call("t.call", _callee, "callee", RegisterSet.Rax)));
    }

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 300;
        if (arguments is not [] && !(arguments is ["--rounds", string value]
            && int.TryParse(value, CultureInfo.InvariantCulture, out rounds) && rounds > 0))
        {
            Console.Error.WriteLine("usage: recipes [--rounds N]");
            return 2;
        }

        Console.WriteLine($"{RuntimeInformation.FrameworkDescription}, {Environment.ProcessorCount} processors; {rounds} rounds");
        using (var generated = new RecipeSpeed())
        {
            generated.Blocks(rounds);
            generated.Calls(rounds);
            generated.Managed(rounds);
        }

        WholeSwitches.Run(rounds);
        return 0;
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _arena.Dispose();
    }

    /// <summary>A block with sites, patched, beside one that was emitted for the backend and is come to through its entry.</summary>
    private void Blocks(int rounds)
    {
        var ways = new List<Way>();
        foreach ((string slot, Action<Assembler> byHand, int each) in new (string, Action<Assembler>, int)[]
        {
            ("nothing", static _ => { }, SiteFunction.Untouched),
            ("load", Load, Value),
            ("call", a => a.call(_callee.Value), Value),
        })
        {
            ways.Add(Generated($"{slot}: compiled for it", each, (a, _) => byHand(a), throughEntry: true));
            ways.Add(Generated($"{slot}: sites", each, (a, s) => Site(a, s, slot)));
        }

        // A site keeps its call inside an aligned eight bytes; packed, there are more calls in a line.
        ways.Add(Generated("call: compiled for it, 8 bytes apart", Value, (a, _) => PaddedCall(a), throughEntry: true));
        Compare("512 operations of a block", rounds, Sites * Loops, ways, baseline: static i => Math.Min(i & ~1, 4));
    }

    /// <summary>A function that can be replaced whole, beside one called by sites that can lead elsewhere.</summary>
    private void Calls(int rounds)
    {
        var own = new StaticCall("own");
        var replaced = new StaticCall("replaced");
        VirtualAddress first = Callee(own);
        VirtualAddress second = Callee(replaced);
        _patcher.Apply(c => c.Target(own, null).Target(replaced, _callee));
        Compare(
            "512 calls of a function", rounds, Sites * Loops,
            [
                Generated("call, no entry", Value, (a, _) => PaddedCall(a)),
                Generated("call, entry is a nop", Value, (a, _) => PaddedCall(a, first)),
                Generated("call, entry jumps to another", Value, (a, _) => PaddedCall(a, second)),
                Generated("ops site, direct call", Value, (a, s) => Site(a, s, "call")),
                Generated("ops site, left indirect", Value, (a, s) => Site(a, s, "call"), bind: false),
            ],
            baseline: static _ => 0);
    }

    /// <summary>A hook that is off in a loop of C#; and the ways into a loop that is compiled once per mode.</summary>
    private void Managed(int rounds)
    {
        fixed (int* data = _data)
        {
            int* a = data;
            long expected = ManagedModes.NoHook<int>(a, Elements);
            for (int i = 0; i < WarmUpRounds; i++)
            {
                ManagedModes.Flip(i % 2 != 0);
                _ = ManagedModes.Flag<int>(a, Elements) + ManagedModes.VolatileField<int>(a, Elements)
                    + ManagedModes.DelegateOrNull<int>(a, Elements) + ManagedModes.EmptyDelegate<int>(a, Elements)
                    + ManagedModes.WholeOn(a, Elements) + ManagedModes.ByPointer<int>(a, FewElements) + ManagedModes.ByDelegate<int>(a, FewElements);
            }

            ManagedModes.Flip(false);
            Way Hook(string name, delegate*<int*, int, long>[] loops) => Repeat(name, loops, a, Elements, ElementLoops, expected);
            Compare(
                "a hook that is off, in a loop of C#", rounds, Elements * ElementLoops,
                [
                    Hook("no hook", [&ManagedModes.NoHook<int>, &ManagedModes.NoHook<long>, &ManagedModes.NoHook<short>]),
                    Hook("Loop<Off>", [&ManagedModes.WholeOff<int>, &ManagedModes.WholeOff<long>, &ManagedModes.WholeOff<short>]),
                    Hook("static readonly bool", [&ManagedModes.ReadOnly<int>, &ManagedModes.ReadOnly<long>, &ManagedModes.ReadOnly<short>]),
                    Hook("static bool", [&ManagedModes.Flag<int>, &ManagedModes.Flag<long>, &ManagedModes.Flag<short>]),
                    Hook("volatile static bool", [&ManagedModes.VolatileField<int>, &ManagedModes.VolatileField<long>, &ManagedModes.VolatileField<short>]),
                    Hook("delegate, null", [&ManagedModes.DelegateOrNull<int>, &ManagedModes.DelegateOrNull<long>, &ManagedModes.DelegateOrNull<short>]),
                    Hook("delegate, empty", [&ManagedModes.EmptyDelegate<int>, &ManagedModes.EmptyDelegate<long>, &ManagedModes.EmptyDelegate<short>]),
                ],
                baseline: static _ => 0);

            var loop = new StaticCall("loop");
            var asm = new Assembler(64);
            var sites = new SiteEmitter(_layout);
            sites.Jump(asm, loop);
            VirtualAddress way = _arena.Emit(asm, sites).Address;
            _patcher.Apply(c => c.Target(loop, ManagedTarget.Of((delegate* unmanaged<int*, int, long>)&FromNative)));
            expected = ManagedModes.NoHook<int>(a, FewElements);
            int entries = Elements * ElementLoops / FewElements;
            Way Entry(string name, delegate*<int*, int, long>[] loops) => Repeat(name, loops, a, FewElements, entries, expected);
            Compare(
                "an entry, and 16 turns of the loop", rounds, entries,
                [
                    Entry("called", [&ManagedModes.NoHook<int>, &ManagedModes.NoHook<long>, &ManagedModes.NoHook<short>]),
                    Entry("Loop<Off>, called", [&ManagedModes.WholeOff<int>, &ManagedModes.WholeOff<long>, &ManagedModes.WholeOff<short>]),
                    Entry("Loop<Off>, function pointer", [&ManagedModes.ByPointer<int>, &ManagedModes.ByPointer<long>, &ManagedModes.ByPointer<short>]),
                    Entry("Loop<Off>, delegate", [&ManagedModes.ByDelegate<int>, &ManagedModes.ByDelegate<long>, &ManagedModes.ByDelegate<short>]),
                    new Way("Loop<Off>, entry of the arena", [() =>
                    {
                        long sum = 0;
                        for (int i = 0; i < entries; i++)
                        {
                            sum += ((delegate* unmanaged<int*, int, long>)way.Value)(a, FewElements);
                        }

                        return sum;
                    }], entries * expected),
                ],
                baseline: static _ => 1);
        }
    }

    private static Way Repeat(string name, delegate*<int*, int, long>[] loops, int* a, int count, int times, long expected)
    {
        var copies = new Func<long>[loops.Length];
        for (int copy = 0; copy < loops.Length; copy++)
        {
            delegate*<int*, int, long> loop = loops[copy];
            copies[copy] = () =>
            {
                long sum = 0;
                for (int i = 0; i < times; i++)
                {
                    sum += loop(a, count);
                }

                return sum;
            };
        }

        return new Way(name, copies, times * expected);
    }

    private static void Compare(string title, int rounds, long count, IReadOnlyList<Way> ways, Func<int, int> baseline)
    {
        double[] least = [.. ways.Select(static _ => double.MaxValue)];
        for (int round = -WarmUpRounds; round < rounds; round++)
        {
            if (round == -WarmUpRounds / 2)
            {
                Thread.Sleep(500); // the runtime compiles what was called often anew, beside
            }

            for (int i = 0; i < ways.Count; i++)
            {
                foreach (Func<long> run in ways[i].Copies)
                {
                    long start = Stopwatch.GetTimestamp();
                    long sum = run();
                    double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / count;
                    Figures.Check(ways[i].Name, sum, ways[i].Sum);
                    least[i] = round < 0 ? least[i] : Math.Min(least[i], time);
                }
            }
        }

        Console.WriteLine();
        Console.WriteLine($"{title,-42}{"min ns",10}{"ratio",10}{"more",10}");
        for (int i = 0; i < ways.Count; i++)
        {
            double unit = least[baseline(i)];
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{ways[i].Name,-42}{least[i],10:0.000}{least[i] / unit,10:0.00}{least[i] - unit,10:0.000}"));
        }
    }

    private Way Generated(string name, int each, Action<Assembler, SiteEmitter> body, bool throughEntry = false, bool bind = true)
    {
        var copies = new Func<long>[Copies];
        for (int i = 0; i < Copies; i++)
        {
            CodeBlock block = SiteFunction.Emit(_arena, _layout, Sites, body);
            if (bind)
            {
                _ = _patcher.Bind(block);
            }

            VirtualAddress address = throughEntry ? Front(block) : block.Address;
            copies[i] = () => SiteFunction.Run(address, (int*)Marshal.UnsafeAddrOfPinnedArrayElement(_data, 0), Loops);
        }

        return new Way(name, copies, (long)each * Sites * Loops);
    }

    /// <summary>A function replaced whole by a block.</summary>
    private VirtualAddress Front(CodeBlock block)
    {
        var entry = new StaticCall("block");
        var a = new Assembler(64);
        var sites = new SiteEmitter(_layout);
        sites.Entry(a, entry);
        a.ud2();
        VirtualAddress front = _arena.Emit(a, sites).Address;
        _patcher.Apply(c => c.Target(entry, block.Address));
        return front;
    }

    private VirtualAddress Callee(StaticCall? entry)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_layout);
        if (entry is not null)
        {
            sites.Entry(a, entry);
        }

        Load(a);
        a.ret();
        return _arena.Emit(a, sites).Address;
    }

    /// <summary>A call of 6 bytes with the addition of 2 behind it.</summary>
    private void PaddedCall(Assembler a, VirtualAddress? target = null)
    {
        a.nop(1);
        a.call((target ?? _callee).Value);
    }

    private void Site(Assembler a, SiteEmitter sites, string slot) =>
        sites.Emit(a, _layout[$"t.{slot}"], 6, RegisterSet.Rax, SitePlacement.InsideAligned8);

    private static void Load(Assembler a) => a.mov(eax, __dword_ptr[rdi + Far]);

    [UnmanagedCallersOnly]
    private static long FromNative(int* a, int count) => ManagedModes.WholeOff<int>(a, count);

    /// <summary>One of the ways compared.</summary>
    /// <param name="Name">What it is.</param>
    /// <param name="Copies">Runs it; each a copy.</param>
    /// <param name="Sum">What each gives.</param>
    private sealed record Way(string Name, Func<long>[] Copies, long Sum);
}
