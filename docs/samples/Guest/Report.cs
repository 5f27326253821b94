using System.Globalization;
using PvGuest.Hypervisors;
using PvGuest.Kernel;
using PvGuest.Machine;

namespace PvGuest;

/// <summary>A line of the table: a run, and the same run without the timer, in which remaps and switches are by themselves.</summary>
internal sealed record ReportLine(string Code, GuestRun Run, GuestRun Quiet)
{
    public string Remap => Each(Quiet.Phases.Where(p => p.IsRemap));

    public string Switch => Each(Quiet.Phases.Where(p => !p.IsRemap));

    public override string ToString()
    {
        Costs c = Run.Costs;
        return string.Create(
            CultureInfo.InvariantCulture,
            $"| {Run.Bitness} | {Run.Hypervisor} | {Code} | {c.Instructions} | {c.Nops} | {c.ThroughTable} | {c.Traps} | {c.Hypercalls} "
            + $"| {Remap} | {Switch} |");
    }

    private static string Each(IEnumerable<PhaseCost> phases) =>
        string.Join("–", phases.Select(p => p.Exits).Distinct().Order());
}

/// <summary>Runs the guest everywhere and says what came of it. All that is written is the same each time.</summary>
internal static class Report
{
    public const string Unpatched = "as assembled";
    public const string Patched = "patched";
    public const string Batched = "patched, batched";
    public const string Trapped = "native, trapped";

    /// <summary>Runs everything.</summary>
    /// <returns>The exit code: 1 where the emulator is missing or two runs differ.</returns>
    public static int Run(TextWriter output, TextWriter error, bool hasEmulator)
    {
        if (!hasEmulator)
        {
            error.WriteLine($"{EmulatedCpu.Library} is not there: install libunicorn2 (Debian), or put the library where it is found");
            return 1;
        }

        var refusals = new List<string>();
        var lines = new List<ReportLine>();
        bool same = true;
        foreach (int bitness in (int[])[32, 64])
        {
            GuestImage image = GuestKernel.Assemble(bitness);
            List<ReportLine> own = Measure(image);
            GuestRun first = own[0].Run;
            if (bitness == 32)
            {
                output.WriteLine("The guest prints:");
                output.WriteLine();
                output.Write(first.Output);
                output.WriteLine();
            }

            same &= own.All(l => l.Run.PageTables.AsSpan().SequenceEqual(first.PageTables));
            lines.AddRange(own);
            refusals.AddRange(Refusals(image));
        }

        same &= lines.All(l => l.Run.Output == lines[0].Run.Output);
        output.WriteLine(same
            ? $"So it does in all {lines.Count} runs, and each leaves the same page tables as the others of its bitness."
            : "RUNS DIFFER in what they print or in the page tables they leave.");
        output.WriteLine();
        WriteTable(output, lines);
        output.WriteLine();
        output.WriteLine("The guest with native code:");
        output.WriteLine();
        foreach (string refusal in refusals)
        {
            output.WriteLine(refusal);
        }

        return same ? 0 : 1;
    }

    /// <summary>All runs of an image that get to their end.</summary>
    public static List<ReportLine> Measure(GuestImage image)
    {
        var lines = new List<ReportLine>();
        foreach (string name in Hypervisor.All(image.Bitness).Select(h => h.Name))
        {
            if (name == "kvm")
            {
                // Only here do instructions that a guest may not execute trap, and are done instead.
                var native = new Native();
                lines.Add(Line(Trapped, ticks => GuestRun.Of(
                    image, new Kvm(), Patching.Batched, native.CreateBackend(image), ticks: ticks)));
            }

            foreach ((string code, Patching patching) in
                ((string, Patching)[])[(Unpatched, Patching.None), (Patched, Patching.Patched), (Batched, Patching.Batched)])
            {
                lines.Add(Line(code, ticks => GuestRun.Of(image, Hypervisor.Create(name, image.Bitness), patching, ticks: ticks)));
            }
        }

        return lines;
    }

    /// <summary>Writes the table, as README.md has it.</summary>
    public static void WriteTable(TextWriter output, IEnumerable<ReportLine> lines)
    {
        output.WriteLine(
            "| bits | machine | code | instructions | nops | through the table | traps | hypercalls | exits a remap | exits a switch |");
        output.WriteLine("| --: | --- | --- | --: | --: | --: | --: | --: | --: | --: |");
        foreach (ReportLine line in lines)
        {
            output.WriteLine(line);
        }
    }

    private static ReportLine Line(string code, Func<int, GuestRun> run) => new(code, run(GuestRun.DefaultTicks), run(0));

    private static IEnumerable<string> Refusals(GuestImage image)
    {
        foreach (Hypervisor hypervisor in Hypervisor.All(image.Bitness).Where(h => h is not Native))
        {
            string said = "runs";
            try
            {
                GuestRun.Of(image, hypervisor, Patching.Batched, new Native().CreateBackend(image));
            }
            catch (GuestException e)
            {
                said = e.Message;
            }

            yield return $"{image.Bitness} bits, {said}";
        }
    }
}
