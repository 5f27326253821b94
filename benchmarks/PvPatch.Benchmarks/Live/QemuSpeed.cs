using System.Globalization;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Interpreter;
using RiscV.Translator;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// The mode <c>qemu</c>: whole programs by the sample emulator and by QEMU's user-mode emulator, in turns. Times are what a processor spent, so that a machine
/// shared with others disturbs them little: for QEMU that of its whole process, for the sample that of its thread from making guest and engine to disposing of them,
/// translation included. The runtime is warm: its start and the compilation of the emulator's own C# are not counted.
/// </summary>
internal static class QemuSpeed
{
    public static int Run(ReadOnlySpan<string> arguments)
    {
        int rounds = 9;
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
        try
        {
            using var programs = new GuestPrograms();
            string[] all = [programs.Empty, .. arguments.Length > 0 ? arguments.ToArray() : programs.All];
            Measure(all, qemu, rounds);
            return 0;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            Console.Error.WriteLine(GuestPrograms.Missing);
            return 1;
        }
    }

    private static void Measure(string[] paths, QemuUser? qemu, int rounds)
    {
        var clock = new ThreadClock();
        double start = 0;
        Console.WriteLine($"{"program",-12}{"instructions",14}{"QEMU ms",10}{"sample ms",11}{"ratio",8}{"without QEMU's start",22}");
        foreach (string path in paths)
        {
            string name = Path.GetFileName(path);
            GuestImage image = Load(path);
            RunRecord expected = Interpret(image);
            Compare(name, expected, Translate(image));
            double ours = double.MaxValue;
            double theirs = double.MaxValue;
            for (int round = 0; round < rounds; round++)
            {
                ours = Math.Min(ours, Time(clock, name, image, expected));
                if (qemu is not null)
                {
                    (string output, int exitCode, double time) = qemu.Execute(path);
                    theirs = Math.Min(theirs, time);
                    Figures.Check($"{name}, exit code by QEMU", exitCode, expected.ExitCode);
                    Figures.Check($"{name}, output by QEMU is the interpreter's", output == expected.Output ? 1 : 0, 1);
                }
            }

            start = path == paths[0] ? theirs : start; // the program that only exits comes first
            string rival = qemu is null
                ? $"{"-",10}{ours / 1000,11:0.0}"
                : $"{theirs / 1000,10:0.0}{ours / 1000,11:0.0}{ours / theirs,8:0.00}{(path == paths[0] ? "" : $"{ours / (theirs - start):0.00}"),22}";
            Console.WriteLine($"{name,-12}{expected.Instructions,14:n0}{rival}");
        }
    }

    /// <summary>Microseconds of the thread, from nothing to nothing.</summary>
    private static double Time(ThreadClock clock, string name, GuestImage image, RunRecord expected)
    {
        long start = clock.Now;
        using (var guest = new Guest(image))
        {
            using var engine = new TranslatorEngine(guest);
            guest.Run(engine);
            Figures.Check($"{name}, instructions", guest.Instructions, expected.Instructions);
            Figures.Check($"{name}, exit code", guest.ExitCode, expected.ExitCode);
        }

        return (clock.Now - start) / 1000.0;
    }

    private static GuestImage Load(string path) =>
        ElfReader.TryRead(File.ReadAllBytes(path), out GuestImage? image, out string? error) ? image : throw new InvalidDataException($"{path}: {error}");

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
