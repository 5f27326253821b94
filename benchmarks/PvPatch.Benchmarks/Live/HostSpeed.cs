using System.Globalization;
using PvPatch.Mechanisms;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Interpreter;
using RiscV.Patching;
using RiscV.Translator;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The mode <c>host</c>: the sample emulator's time for whole programs, as <c>fast</c>, as <c>checked</c>, with every memory operation left
/// indirect, and by a C# interpreter with a dispatch table. Ways take turns; what each leaves (registers, memory, output, instructions) is
/// compared every time. Times are what a processor spent on the thread.
/// </summary>
internal static class HostSpeed
{
    private static readonly (string Name, Func<Guest, IEngine> Create)[] s_ways =
    [
        ("fast", static guest => new TranslatorEngine(guest)),
        ("checked", static guest => Switched(guest, static backends => backends.Checked)),
        ("memory operations left indirect", static guest => Switched(guest, static backends => backends.Indirect)),
        ("C# table dispatch", static guest => new InterpreterEngine(guest)),
    ];

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 15;
        int files = 0;
        if (arguments is ["--rounds", string value, ..])
        {
            files = 2;
            if (!int.TryParse(value, CultureInfo.InvariantCulture, out rounds) || rounds <= 0)
            {
                Console.Error.WriteLine("usage: host [--rounds N] [ELF...]");
                return 2;
            }
        }

        Measure("the built-in sieve", BuiltInProgram.Create(), rounds);
        foreach (string path in arguments[files..])
        {
            if (!ElfReader.TryRead(File.ReadAllBytes(path), out GuestImage? image, out string? error))
            {
                Console.Error.WriteLine($"{path}: {error}");
                return 1;
            }

            Measure(Path.GetFileName(path), image, rounds);
        }

        return 0;
    }

    private static void Measure(string program, GuestImage image, int rounds)
    {
        double[][] times = [.. s_ways.Select(_ => new double[rounds])];
        RunRecord expected = Execute(image, s_ways[^1].Create);

        // The first round is for the runtime's compiler.
        for (int round = -1; round < rounds; round++)
        {
            for (int i = 0; i < s_ways.Length; i++)
            {
                int way = (i + round + 1) % s_ways.Length;
                RunRecord run = Execute(image, s_ways[way].Create);
                if (!run.Equals(expected))
                {
                    throw new InvalidOperationException($"{program}, {s_ways[way].Name}: {run}, expected {expected}");
                }

                if (round >= 0)
                {
                    times[way][round] = run.Time.TotalMicroseconds;
                }
            }
        }

        Console.WriteLine();
        Console.WriteLine($"{$"{program}, {expected.Instructions:n0} instructions",-52}{"M/s",8}{"ratio: min",12}{"median",10}");
        for (int i = 0; i < s_ways.Length; i++)
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{s_ways[i].Name,-52}{expected.Instructions / times[i].Min(),8:0}{times[i].Min() / times[0].Min(),12:0.00}"
                + $"{Figures.MedianRatio(times[i], times[0]),10:0.00}"));
        }
    }

    private static RunRecord Execute(GuestImage image, Func<Guest, IEngine> create)
    {
        using var guest = new Guest(image);
        IEngine engine = create(guest);
        using var disposable = (IDisposable)engine;
        var clock = new ThreadClock();
        return RunRecord.Of(guest, engine, clock: () => TimeSpan.FromMicroseconds(clock.Now / 1000.0));
    }

    private static TranslatorEngine Switched(Guest guest, Func<GuestBackends, Backend> choose)
    {
        var engine = new TranslatorEngine(guest);
        engine.Switch(choose(engine.Backends));
        return engine;
    }
}
