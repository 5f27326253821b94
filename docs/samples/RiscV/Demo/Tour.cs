using RiscV.Host;
using RiscV.Interpreter;
using RiscV.Translator;

namespace RiscV.Demo;

/// <summary>
/// Shows what the sample is about: the same program by every engine and backend, switched while it runs, and what each costs.
/// </summary>
internal sealed class Tour(GuestImage image, TextWriter output)
{
    private const int Rounds = 5;

    /// <summary>Runs it all. Whether all results are equal.</summary>
    public bool Run()
    {
        RunRecord reference = Interpret();
        Translate(indirect: false); // the runtime compiles the translator: no backend should have that in its time
        output.WriteLine($"The guest: {reference.Instructions:n0} instructions, exit code {reference.ExitCode}, {reference.Stop}");
        output.WriteLine(reference.Output.TrimEnd());
        output.WriteLine();
        bool equal = RunBackends(reference);
        equal &= SwitchWhileRunning(reference);
        equal &= CompareSpeed(reference);
        output.WriteLine(equal ? "All results are equal." : "RESULTS DIFFER");
        return equal;
    }

    private bool RunBackends(RunRecord reference)
    {
        output.WriteLine("Each backend from the start");
        bool equal = true;
        foreach (string name in new[] { "fast", "checked", "traced", "profiled" })
        {
            var counter = new AccessCounter();
            using var guest = new Guest(image);
            using var engine = new TranslatorEngine(guest, counter);
            engine.Switch(engine.Backends.All.First(b => b.Name == name));
            RunRecord run = RunRecord.Of(guest, engine);
            string seen = name switch
            {
                "traced" => $", {counter.Total:n0} accesses reported",
                "profiled" => $", {engine.Profile.Counts.Count} blocks entered {engine.Profile.Counts.Values.Sum():n0} times",
                _ => "",
            };
            equal &= Compare(name, reference, run, seen);
        }

        output.WriteLine();
        return equal;
    }

    private bool SwitchWhileRunning(RunRecord reference)
    {
        output.WriteLine("Switched from another thread every millisecond while it runs");
        using var guest = new Guest(image);
        using var engine = new TranslatorEngine(guest, new AccessCounter());
        using var switcher = new Switcher(engine, TimeSpan.FromMilliseconds(1));
        RunRecord run = RunRecord.Of(guest, engine);
        switcher.Stop();
        bool equal = Compare("all four", reference, run, "");
        (double microseconds, int sites) = switcher.Median;
        output.WriteLine(
            $"  {switcher.Switches} switches, {switcher.SitesWritten:n0} sites written; the median switch took {microseconds:0.0} us "
            + $"for {sites} sites");
        output.WriteLine();
        return equal;
    }

    /// <summary>The three in turns, the best of each: a machine that is busy is so for all of them.</summary>
    private bool CompareSpeed(RunRecord reference)
    {
        output.WriteLine($"Speed (best of {Rounds}, in turns)");
        var table = new List<RunRecord>();
        var indirect = new List<RunRecord>();
        var fast = new List<RunRecord>();
        for (int i = 0; i < Rounds; i++)
        {
            table.Add(Interpret());
            indirect.Add(Translate(indirect: true));
            fast.Add(Translate(indirect: false));
        }

        TimeSpan unit = fast.Min(static r => r.Time);
        Print("C# table dispatch", table, unit);
        Print("translated, memory sites indirect", indirect, unit);
        Print("translated, fast", fast, unit);
        output.WriteLine();
        return table.Concat(indirect).Concat(fast).All(reference.Equals);
    }

    private RunRecord Interpret()
    {
        using var guest = new Guest(image);
        using var engine = new InterpreterEngine(guest);
        return RunRecord.Of(guest, engine);
    }

    private RunRecord Translate(bool indirect)
    {
        using var guest = new Guest(image);
        using var engine = new TranslatorEngine(guest);
        if (indirect)
        {
            engine.Switch(engine.Backends.Indirect);
        }

        return RunRecord.Of(guest, engine);
    }

    private void Print(string name, List<RunRecord> runs, TimeSpan unit)
    {
        RunRecord best = runs.MinBy(static r => r.Time)!;
        output.WriteLine(
            $"  {name,-34} {best.Instructions / best.Time.TotalMicroseconds,8:n0} M instructions/s {best.Time / unit,8:0.00} x the "
            + $"time of fast");
    }

    private bool Compare(string name, RunRecord reference, RunRecord run, string more)
    {
        bool equal = run.Equals(reference);
        output.WriteLine($"  {name,-10} {(equal ? "same result" : "DIFFERENT RESULT: " + run)}, {run.Time.TotalMilliseconds:n0} ms{more}");
        return equal;
    }
}
