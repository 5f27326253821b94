using System.Globalization;
using PvPatch.Plans;

namespace PvPatch.Tool.Diff;

/// <summary>Differences of two plans: counted by slot and action, or site by site for some slots.</summary>
internal static class PlanDiffText
{
    private const int SlotWidth = 34;
    private const int CodeWidth = 48;
    private static readonly CultureInfo s_culture = CultureInfo.InvariantCulture;

    /// <param name="diff">The differences.</param>
    /// <param name="slot">The slots to list each site of; <see langword="null"/> for none of them.</param>
    /// <param name="output">The output.</param>
    public static void Write(PlanDiff diff, string? slot, TextOutput output)
    {
        var disassembler = new Disassembler(diff.First.Bitness, Names(diff));
        if (slot is not null)
        {
            WriteSites(diff, slot, disassembler, output);
        }
        else if (diff.Differences.Count > 0)
        {
            WriteGroups(diff, disassembler, output);
        }

        output.Write($"{Name(diff.First)} and {Name(diff.Second)}: ", Ink.Strong)
            .Line(diff.AreEqual ? string.Create(s_culture, $"the same at all {diff.Common} sites")
                : diff.First.Bitness != diff.Second.Bitness ? $"{diff.First.Bitness}-bit and {diff.Second.Bitness}-bit code"
                : string.Create(s_culture,
                    $"{diff.Differences.Count} of "
                    + $"{diff.Common + diff.Count(PlanDifferenceKinds.OnlyInFirst | PlanDifferenceKinds.OnlyInSecond)} sites "
                    + $"differ{Kinds(diff)}"));
    }

    private static void WriteGroups(PlanDiff diff, Disassembler disassembler, TextOutput output)
    {
        output.Column("slot", SlotWidth, Ink.Faint).Column("sites", 8, Ink.Faint)
            .Column($"for example {Name(diff.First)}", CodeWidth, Ink.Faint).Line(Name(diff.Second), Ink.Faint);
        IEnumerable<IGrouping<(string?, PatchAction?, PatchAction?),
        PlanDifference>> groups = diff.Differences.GroupBy(static d => (Label(d), d.First?.Action, d.Second?.Action));
        foreach (
            IGrouping<(string? Label, PatchAction?, PatchAction?), PlanDifference> group in groups.OrderBy(static g => Type(g.First())))
        {
            PlanDifference example = group.First();
            output.Column(group.Key.Label ?? "", SlotWidth).Column(string.Create(s_culture, $"{group.Count(),5}"), 8);
            WriteBoth(example, disassembler, output);
        }

        output.Line("Each site: --slot GLOB; all of them: --json.", Ink.Faint);
        output.Line();
    }

    private static void WriteSites(PlanDiff diff, string slot, Disassembler disassembler, TextOutput output)
    {
        foreach (PlanDifference difference in diff.Differences.Where(d => SlotFilter.Matches(slot, Label(d) ?? "")))
        {
            output.Column(difference.Address.ToString(), 20).Column(Label(difference) ?? "", SlotWidth);
            WriteBoth(difference, disassembler, output);
        }
    }

    private static void WriteBoth(PlanDifference difference, Disassembler disassembler, TextOutput output) =>
        output.Column(Code(difference.First, disassembler), CodeWidth).Line(Code(difference.Second, disassembler));

    private static string Code(SiteDecision? site, Disassembler disassembler) =>
        site is SiteDecision there ? disassembler.Line(there.NewBytes, there.Address) : "no site";

    private static string Kinds(PlanDiff diff) =>
        string.Concat(
            diff.Count(PlanDifferenceKinds.OnlyInFirst) is > 0 and int first
                ? string.Create(s_culture, $", {first} only in the first") : "",
            diff.Count(PlanDifferenceKinds.OnlyInSecond) is > 0 and int second
                ? string.Create(s_culture, $", {second} only in the second") : "",
            diff.Count(PlanDifferenceKinds.OldBytes) is > 0 and int old
                ? string.Create(s_culture, $", {old} by their original bytes: the plans are of different kernels") : "");

    private static string? Label(PlanDifference difference) => (difference.First ?? difference.Second)?.Label;

    private static int Type(PlanDifference difference) => (difference.First ?? difference.Second)?.Outcome.Type ?? int.MaxValue;

    private static string Name(PatchPlan plan) => $"{plan.Backend} ({plan.Rules})";

    /// <summary>The names of targets: a stored plan has no other symbols.</summary>
    private static Func<ulong, string?> Names(PlanDiff diff)
    {
        var names = new Dictionary<ulong, string>();
        foreach (PlanOutcome outcome in diff.Differences.SelectMany(static d => new[] { d.First?.Outcome, d.Second?.Outcome })
            .OfType<PlanOutcome>())
        {
            if (outcome is { Target: VirtualAddress target, TargetName: string name })
            {
                names.TryAdd(target.Value, name);
            }
        }

        return address => names.GetValueOrDefault(address);
    }
}
