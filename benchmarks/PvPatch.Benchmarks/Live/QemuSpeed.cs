using System.Globalization;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Interpreter;
using RiscV.Translator;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The mode <c>qemu</c>: whole programs by the sample emulator and by QEMU's user-mode emulator, in turns. Times are what a processor
/// spent, so that a machine shared with others disturbs them little: for QEMU that of its whole process, for the sample that of its thread
/// from making guest and engine to disposing of them, translation included. The runtime is warm: its start and the compilation of the
/// emulator's own C# are not counted. A third way is the sample's translation without sites, as if nothing could be patched: what it costs
/// that tracing could be switched on. Both are measured with their code at every multiple of eight in a 64-byte line, for the place alone
/// makes a loop some percent faster or slower.
/// </summary>
internal static class QemuSpeed
{
    private const int Places = 8;

    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 2 * Places;
        if (arguments is ["--rounds", string value, ..])
        {
            if (!int.TryParse(value, CultureInfo.InvariantCulture, out rounds) || rounds <= 0)
            {
                Console.Error.WriteLine("usage: qemu [--rounds N] [ELF...]");
                return 2;
            }

            arguments = arguments[2..];
        }

        QemuUser? qemu = QemuUser.Find();
        Console.WriteLine(qemu?.Version ?? $"{QemuUser.Name} (Debian: qemu-user) was not found on PATH: only the sample is measured.");
        using GuestPrograms? programs = GuestPrograms.Compile();
        if (programs is null && arguments.IsEmpty)
        {
            Console.Error.WriteLine(GuestPrograms.Missing);
            return 1;
        }

        string[] paths = arguments.IsEmpty ? [.. programs!.All] : arguments.ToArray();
        Measure(programs?.Empty, paths, qemu, rounds);
        return 0;
    }

    // The program that only exits, where there is one, is measured first: the others need its time.
    private static void Measure(string? empty, string[] paths, QemuUser? qemu, int rounds)
    {
        var clock = new ThreadClock();
        double start = 0;
        Console.WriteLine($"{"",-26}{"ms of a processor",31}{"sample to",13}{"at one place",35}");
        Console.WriteLine(
            $"{"program",-12}{"instructions",14}{"QEMU",10}{"sample",10}{"no sites",11}{"QEMU",8}{"without its start",19}{"no sites",10}"
            + $"{"median",10}{"most",8}");
        foreach (string path in empty is null ? paths : [empty, .. paths])
        {
            string name = Path.GetFileName(path);
            GuestImage image = Load(path);
            RunRecord expected = Interpret(image);
            Compare(name, expected, Translate(image));
            double[] ours = [.. Enumerable.Repeat(double.MaxValue, Places)];
            double[] plain = [.. ours];
            double theirs = double.MaxValue;
            for (int round = 0; round < rounds; round++)
            {
                int place = round % Places;
                ours[place] = Math.Min(ours[place], Time(clock, name, image, expected, patchable: true, place));
                plain[place] = Math.Min(plain[place], Time(clock, name, image, expected, patchable: false, place));
                if (qemu is not null)
                {
                    (string output, int exitCode, double spent) = qemu.Execute(path);
                    theirs = Math.Min(theirs, spent);
                    Figures.Check($"{name}, exit code by QEMU", exitCode, expected.ExitCode);
                    Figures.Check($"{name}, output by QEMU is the interpreter's", output == expected.Output ? 1 : 0, 1);
                }
            }

            start = path == empty ? theirs : start;
            string time = qemu is null ? "-" : $"{theirs / 1000:0.0}";
            string toQemu = qemu is null ? "-" : $"{ours.Min() / theirs:0.00}";
            string toQemuStarted = qemu is null || start == 0 || path == empty ? "-" : $"{ours.Min() / (theirs - start):0.00}";
            double[] ratios = [.. ours.Zip(plain, static (a, b) => a / b).Take(rounds)];
            Console.WriteLine(
                $"{name,-12}{expected.Instructions,14:n0}{time,10}{ours.Min() / 1000,10:0.0}{plain.Min() / 1000,11:0.0}"
                + $"{toQemu,8}{toQemuStarted,19}{ours.Min() / plain.Min(),10:0.000}"
                + $"{Figures.Median(ratios),10:0.000}{ratios.Max(),8:0.000}");
        }
    }

    /// <summary>Microseconds of the thread, from nothing to nothing.</summary>
    private static double Time(ThreadClock clock, string name, GuestImage image, RunRecord expected, bool patchable, int place)
    {
        long start = clock.Now;
        using (var guest = new Guest(image))
        {
            using var engine = new TranslatorEngine(guest, patchable: patchable, shift: 64 / Places * place);
            guest.Run(engine);
            Figures.Check($"{name}, instructions", guest.Instructions, expected.Instructions);
            Figures.Check($"{name}, exit code", guest.ExitCode, expected.ExitCode);
        }

        return (clock.Now - start) / 1000.0;
    }

    private static GuestImage Load(string path) =>
        ElfReader.TryRead(File.ReadAllBytes(path), out GuestImage? image, out string? error)
            ? image
            : throw new InvalidDataException($"{path}: {error}");

    private static RunRecord Interpret(GuestImage image)
    {
        using var guest = new Guest(image);
        using var engine = new InterpreterEngine(guest);
        return RunRecord.Of(guest, engine);
    }

    private static RunRecord Translate(GuestImage image)
    {
        using var guest = new Guest(image);
        using var engine = new TranslatorEngine(guest);
        return RunRecord.Of(guest, engine);
    }

    private static void Compare(string name, RunRecord expected, RunRecord found)
    {
        if (!found.Equals(expected))
        {
            throw new InvalidOperationException($"{name}: {found}, expected {expected}");
        }
    }
}
