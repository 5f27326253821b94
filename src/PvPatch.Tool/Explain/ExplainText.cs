using System.Globalization;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Explain;

/// <summary>
/// Explanation of a site as text: its facts, then its decision on each backend; backends with the same decision are grouped.
/// </summary>
internal static class ExplainText
{
    private const int FieldWidth = 15;
    private const int BytesWidth = 26;
    private static readonly CultureInfo s_culture = CultureInfo.InvariantCulture;

    public static void Write(SiteExplanation site, TextOutput output)
    {
        var disassembler = new Disassembler(site.Image.Elf.Bitness, site.Names.NameOf);
        SiteDecision first = site.DecisionOf(site.Plans[0]);
        output.Line(string.Create(s_culture, $"Site {site.Index} of {site.Image.Sites.Count}: {site.Slot.Name} at {site.Site.Address}"),
            Ink.Strong);
        string offset = site.FileOffset is long at ? string.Create(s_culture, $", file offset 0x{at:x}") : "";
        string function = site.Names.PlaceOf(site.Site.Address) is string place ? $"{place}, " : "";
        Field(output, "place", string.Create(s_culture, $"{function}{first.Section}, {site.Site.Budget} bytes{offset}"));
        Field(output, "slot", string.Create(
            s_culture, $"{site.Slot.Name}, type {site.Slot.Index}, {(site.Slot.Kind == SlotKind.Jump ? "jumped to" : "called")}"));
        Field(output, "may destroy",
            Words.Of(site.Site.Clobbers, site.Image.Elf.Bitness) + (site.ClobbersCount ? "" : " (kernels of this era do not look at it)"));
        Field(output, "on disk", site.Native.Target is VirtualAddress native
            ? $"the ops table holds {site.Names.Describe(native)}" : "the ops table holds no function");
        foreach (AltInstr record in site.Alternatives)
        {
            Field(output, "alternative", Describe(site, record, disassembler));
        }

        output.Line();
        WriteCode(output, disassembler, "before", first.OldBytes, first.Address);
        foreach (IReadOnlyList<PatchPlan> group in site.Groups())
        {
            SiteDecision decision = site.DecisionOf(group[0]);
            output.Line();
            output.Write($"  {string.Join(", ", group.Select(static p => p.Backend))}", Ink.Strong).Write(": ")
                .Write(Words.Of(decision.Action), Words.InkOf(decision.Action)).Line($", by the rules {group[0].Rules}");
            WriteCode(output, disassembler, "after", decision.NewBytes, decision.Address);
            Field(output, "why", Why(site, decision.Outcome));
        }
    }

    private static string Describe(SiteExplanation site, in AltInstr record, Disassembler disassembler)
    {
        if (record.IsDirectCall)
        {
            return $"if {site.Condition(record)}: a direct call of what the slot holds";
        }

        ReadOnlyMemory<byte> bytes = site.Replacement(record);
        return $"if {site.Condition(record)}: "
            + $"{(record.ReplacementLength == 0 ? "nothing" : disassembler.Line(bytes.Span, record.ReplacementAddress))}";
    }

    private static string Why(SiteExplanation site, PlanOutcome outcome)
    {
        string target = outcome.Target is VirtualAddress address ? site.Names.Describe(address) : "";
        return outcome switch
        {
            { Action: PatchAction.LeaveAlone } => $"{Words.Of(outcome.Reason)}{(outcome.Detail is string detail ? $" ({detail})" : "")}",
            { Detail: string alternative } when site.Alternatives.Count > 0 =>
                $"{alternative}, which the kernel lays over the site after it patched the call",
            { Action: PatchAction.Nop } => "the slot holds the kernel's empty function",
            { Action: PatchAction.Call or PatchAction.Jump } => $"the slot holds {target}, which is in reach",
            { Action: PatchAction.ThunkCall } => $"{target} destroys more than the site allows; the thunk {outcome.Detail}",
            { Action: PatchAction.Trap or PatchAction.CallBug } => "the slot holds no function: reaching the site is a mistake",
            { Action: PatchAction.Identity } => "the operation gives back its argument",
            _ => "the operation's instructions fit and destroy nothing the site needs",
        };
    }

    private static void WriteCode(TextOutput output, Disassembler disassembler, string name, ReadOnlySpan<byte> bytes, VirtualAddress start)
    {
        foreach (InstructionText instruction in disassembler.Decode(bytes, start))
        {
            ReadOnlySpan<byte> own = bytes.Slice(
                (int)(instruction.Address - start), Math.Min(instruction.Length, bytes.Length - (int)(instruction.Address - start)));
            output.Column($"  {name}", FieldWidth, Ink.Faint).Column($"{instruction.Address}", 20)
                .Column(HexBytes.Format(own), BytesWidth, Ink.Faint).Line(instruction.Text);
            name = "";
        }
    }

    private static void Field(TextOutput output, string name, string value) =>
        output.Column($"  {name}", FieldWidth, Ink.Faint).Line(value);
}
