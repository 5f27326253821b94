using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// What it costs generated code to read a word of its executor's, and to write one, behind the gs base and behind a register, beside a
/// word at a fixed address (of nobody in particular) and C#'s own thread-static; and what it costs to enter with a gs base.
/// </summary>
internal static unsafe class WordSpeed
{
    private const int Sites = 512;
    private const int Loops = 512;
    private const int Value = 3;
    private const int WarmUpRounds = 20;

    private static readonly ExecutorWord s_read = new("read", sizeof(int));
    private static readonly ExecutorWord s_written = new("written", sizeof(short));

    [ThreadStatic]
    private static int s_threadWord;

    public static void Run(int rounds)
    {
        using CodeArena arena = CodeArena.Reserve(size: 16 << 20);
        OpsLayout none = OpsLayout.Create(static _ => { });
        ExecutorWord[] all = [s_read, s_written];
        var behind = new ExecutorWords(arena, all, rdi);
        ExecutorWords? gs = arena.CanSetGsBase ? new ExecutorWords(arena, all) : null;
        using Executor executor = arena.RegisterExecutor("words", gs ?? behind);
        using Executor plain = arena.RegisterExecutor("no words");
        using Executor other = arena.RegisterExecutor("another", gs ?? behind);
        int* at = (int*)executor.AddressOf(s_read).Value;
        *at = Value;

        // Near the code: a word that is reached by rip, as a static is.
        var data = new Assembler(64);
        data.dd(Value);
        ulong fixedWord = arena.Emit(data).Address.Value;
        int* words = (int*)executor.WordsAddress.Value;
        var ways = new List<(string Name, Func<long> Run, long Count)>
        {
            ("read behind a register", Generated(a => a.mov(eax, behind.Operand(s_read))), Sites * Loops),
            ("read at a fixed address (rip)", Generated(a => a.mov(eax, __dword_ptr[fixedWord])), Sites * Loops),
            ("read a C# thread-static", ThreadStatic, Sites * Loops),
            ("write behind a register", Generated(a => a.mov(behind.Operand(s_written), 0)), Sites * Loops),
            ("enter and leave", () => Enter(plain), Loops),
        };
        if (gs is not null)
        {
            ways.Insert(1, ("read behind gs", Generated(a => a.mov(eax, gs.Operand(s_read))), Sites * Loops));
            ways.Insert(5, ("write behind gs", Generated(a => a.mov(gs.Operand(s_written), 0)), Sites * Loops));
            ways.Add(("enter and leave, gs set and given back", () => Enter(other), Loops));
        }

        executor.Enter();
        s_threadWord = Value;
        double[] least = [.. ways.Select(static _ => double.MaxValue)];
        for (int round = -WarmUpRounds; round < rounds; round++)
        {
            for (int i = 0; i < ways.Count; i++)
            {
                long start = Stopwatch.GetTimestamp();
                long sum = ways[i].Run();
                double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds / ways[i].Count;
                if (ways[i].Name.StartsWith("read", StringComparison.Ordinal))
                {
                    Figures.Check(ways[i].Name, sum, Value * (long)Sites * Loops);
                }

                least[i] = Math.Min(least[i], time);
            }
        }

        executor.Leave();
        Console.WriteLine();
        Console.WriteLine($"{"words of an executor",-42}{"min ns",10}{"ratio",10}");
        for (int i = 0; i < ways.Count; i++)
        {
            double unit = least[ways.FindIndex(w => w.Name.StartsWith(ways[i].Name.Split(' ')[0], StringComparison.Ordinal))];
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{ways[i].Name,-42}{least[i],10:0.000}{least[i] / unit,10:0.00}"));
        }

        Func<long> Generated(Action<Assembler> body)
        {
            CodeBlock block = SiteFunction.Emit(arena, none, Sites, (a, _) => body(a));
            return () => SiteFunction.Run(block.Address, words, Loops);
        }
    }

    [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
    private static long ThreadStatic()
    {
        long sum = 0;
        for (int i = 0; i < Sites * Loops; i++)
        {
            sum += Volatile.Read(ref s_threadWord);
        }

        return sum;
    }

    [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
    private static long Enter(Executor executor)
    {
        for (int i = 0; i < Loops; i++)
        {
            executor.Enter();
            executor.Leave();
        }

        return 0;
    }
}
