using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Locks;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The mode <c>locks</c>: a lock and an unlock in generated code, the native unlock inlined, called directly, called through its slot, and
/// paravirtual; by one thread, and by two for one lock. All take turns, and ratios are taken within each round.
/// </summary>
internal static unsafe class LockSpeed
{
    private const int WarmUpRounds = 10;
    private const int Alone = 1 << 17;
    private const int Contended = 1 << 17; // more takes minutes on a busy machine: who is served next may have no processor
    private const string LoadFile = "/proc/loadavg";

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 200;
        bool understood = arguments is []
            || (arguments is ["--rounds", string value] && int.TryParse(value, CultureInfo.InvariantCulture, out rounds) && rounds > 0);
        if (!understood)
        {
            Console.Error.WriteLine("usage: locks [--rounds N]");
            return 2;
        }

        Console.WriteLine(
            $"{RuntimeInformation.FrameworkDescription}, {Environment.ProcessorCount} processors, load average {Load()}; {rounds} rounds");
        using CodeArena arena = CodeArena.Reserve(size: 16 << 20);
        foreach (SpinLockKind kind in Enum.GetValues<SpinLockKind>())
        {
            Rival[] rivals =
            [
                new(arena, kind, "native, unlock inlined", static (_, _) => { }),
                new(arena, kind, "native, unlock called", static (locks, unlock) => locks.Patcher.Switch(
                    locks.Functions[locks.Kind, SpinLockMode.Native].Derive("called", b => b.Call("lock.spin_unlock", unlock)))),
                new(arena, kind, "native, through slots", static (locks, _) => locks.Patcher.Revert()),
                new(arena, kind, "paravirtual",
                    static (locks, _) => locks.Switch(SpinLockMode.Paravirtual, new() { Mode = SwitchMode.Quiescent })),
            ];
            Compare($"{kind} lock, one thread", rounds, rivals, static r => r.Time(Alone));
            if (Environment.ProcessorCount > 1)
            {
                Compare($"{kind} lock, two threads", Math.Max(1, rounds / 10), rivals, static r => r.TimeTwo(Contended));
            }

            Array.ForEach(rivals, static r => r.Dispose());
        }

        Console.WriteLine($"load average {Load()}");
        return 0;
    }

    private static void Compare(string what, int rounds, Rival[] rivals, Func<Rival, double> time)
    {
        double[][] times = [.. rivals.Select(_ => new double[rounds])];
        int warmUp = Math.Min(WarmUpRounds, rounds);
        for (int round = -warmUp; round < rounds; round++)
        {
            for (int i = 0; i < rivals.Length; i++)
            {
                int number = (i + round + warmUp) % rivals.Length;
                double taken = time(rivals[number]);
                if (round >= 0)
                {
                    times[number][round] = taken;
                }
            }
        }

        Console.WriteLine();
        Console.WriteLine($"{what,-36}{"min ns",10}{"median",10}{"ratio: min",12}{"median",10}");
        for (int i = 0; i < rivals.Length; i++)
        {
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{rivals[i].Name,-36}{times[i].Min(),10:0.00}{Figures.Median(times[i]),10:0.00}"
                    + $"{times[i].Min() / times[0].Min(),12:0.00}{Figures.MedianRatio(times[i], times[0]),10:0.00}"));
        }
    }

    private static string Load() => File.Exists(LoadFile) ? File.ReadAllText(LoadFile).Trim() : "unknown";

    /// <summary>Spinlocks of their own, switched once, and a loop that locks, counts and unlocks.</summary>
    private sealed class Rival : IDisposable
    {
        private const int Word = 16; // in the middle of the memory, the count a line behind it
        private const int Count = Word + 16;

        private readonly ulong[] _memory = GC.AllocateArray<ulong>(48, pinned: true);
        private readonly SpinLocks _locks;
        private readonly VirtualAddress _loop;

        public Rival(CodeArena arena, SpinLockKind kind, string name, Action<SpinLocks, VirtualAddress> prepare)
        {
            Name = name;
            _locks = new SpinLocks(arena, kind);
            var unlock = new Assembler(64);
            _locks.Functions[kind, SpinLockMode.Native]["lock.spin_unlock"].Body!.WriterFor(_locks.Unlock.Convention)!(unlock);
            unlock.ret();
            VirtualAddress called = arena.Emit(unlock).Address;
            CodeBlock block = EmitLoop(arena);
            _locks.Bind(block);
            prepare(_locks, called);
            _loop = block.Address;
        }

        public string Name { get; }

        public void Dispose() => _locks.Dispose();

        /// <summary>Nanoseconds of a turn.</summary>
        public double Time(int turns)
        {
            Volatile.Write(ref _memory[Count], 0);
            long start = Stopwatch.GetTimestamp();
            Go(turns);
            double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / turns;
            Figures.Check(Name, (long)Volatile.Read(ref _memory[Count]), turns);
            return time;
        }

        /// <summary>Nanoseconds of a turn where two threads take turns as they can.</summary>
        public double TimeTwo(int turns)
        {
            Volatile.Write(ref _memory[Count], 0);
            int there = 0;
            var other = new Thread(() =>
            {
                Meet(ref there);
                Go(turns);
            });
            other.Start();
            Meet(ref there);
            long start = Stopwatch.GetTimestamp();
            Go(turns);
            other.Join();
            double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / (2 * turns);
            Figures.Check(Name, (long)Volatile.Read(ref _memory[Count]), 2 * turns);
            return time;
        }

        /// <summary>Comes back when both threads have a processor.</summary>
        private static void Meet(ref int there)
        {
            Interlocked.Increment(ref there);
            while (Volatile.Read(ref there) < 2)
            {
                Thread.SpinWait(1);
            }
        }

        private void Go(int turns)
        {
            ulong memory = (ulong)(nint)Unsafe.AsPointer(ref _memory[0]);
            ((delegate* unmanaged<ulong, long, void>)_loop.Value)(memory, turns);
        }

        private CodeBlock EmitLoop(CodeArena arena)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter(_locks.Layout);
            Label loop = a.CreateLabel();
            a.push(rbx);
            a.mov(rbx, rsi);
            a.add(rdi, Word * sizeof(ulong));
            a.Label(ref loop);
            sites.Emit(a, _locks.Lock);
            a.inc(__qword_ptr[rdi + ((Count - Word) * sizeof(ulong))]);
            sites.Emit(a, _locks.Unlock, placement: SitePlacement.InsideAligned8);
            a.dec(rbx);
            a.jne(loop);
            a.pop(rbx);
            a.ret();
            return arena.Emit(a, sites);
        }
    }
}
