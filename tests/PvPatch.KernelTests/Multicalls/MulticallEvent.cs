using System.Globalization;
using System.Text.RegularExpressions;

namespace PvPatch.KernelTests.Multicalls;

/// <summary>
/// One line of the kernel's trace of its multicalls: an event of the group "xen" (xen_mc_flush), or a traced function that changes the lazy
/// mode.
/// </summary>
/// <param name="Cpu">The CPU.</param>
/// <param name="Task">Process id of the task it runs; 0 is idle.</param>
/// <param name="Flags">What the tracer says of the CPU: "d..2.".</param>
/// <param name="Name">The event or function.</param>
/// <param name="Text">What the event says; of a function its caller.</param>
internal sealed partial record MulticallEvent(int Cpu, int Task, string Flags, string Name, string Text)
{
    /// <summary>
    /// Whether the kernel is in an interrupt by its own word (in_interrupt()): also where a section of it has soft interrupts off.
    /// </summary>
    public bool IsInInterrupt => Flags[2] != '.' || Flags[0] is 'b' or 'D';

    public bool IsPreemptible => Flags[0] == '.' && Flags[3] == '.' && !IsInInterrupt;

    /// <summary>The first numbers of the text, in their order.</summary>
    public int[] Numbers(int count) =>
        [.. Number().Matches(Text).Take(count).Select(static m => int.Parse(m.ValueSpan, CultureInfo.InvariantCulture))];

    public override string ToString() => $"CPU {Cpu}, task {Task}, {Flags} {Name}: {Text}";

    /// <summary>Reads a trace.</summary>
    /// <param name="trace">The tracer's file "trace".</param>
    /// <exception cref="InvalidDataException">Events were lost.</exception>
    public static IReadOnlyList<MulticallEvent> ReadAll(string trace)
    {
        Match kept = Kept().Match(trace);
        if (!kept.Success || kept.Groups[1].Value != kept.Groups[2].Value || trace.Contains("LOST", StringComparison.Ordinal))
        {
            string found = kept.Success ? kept.Value : trace[..Math.Min(2000, trace.Length)];
            throw new InvalidDataException($"The trace is not whole: {found}");
        }

        return
        [
            .. Line().Matches(trace).Select(static m => new MulticallEvent(
                int.Parse(m.Groups[2].ValueSpan, CultureInfo.InvariantCulture),
                int.Parse(m.Groups[1].ValueSpan, CultureInfo.InvariantCulture),
                m.Groups[3].Value,
                m.Groups[4].Value,
                m.Groups[5].Value.Trim())),
        ];
    }

    // "            init-88      [000] dN.2.     7.750405: xen_mc_issue: start batch LAZY_MMU"
    [GeneratedRegex(@"^.*-(\d+) +\[(\d+)\] (\S{4,}) +[\d.]+: (\w+):? (.*)$", RegexOptions.Multiline)]
    private static partial Regex Line();

    [GeneratedRegex(@"entries-in-buffer/entries-written: (\d+)/(\d+)")]
    private static partial Regex Kept();

    [GeneratedRegex(@"(?<!\w)\d+")]
    private static partial Regex Number();
}
