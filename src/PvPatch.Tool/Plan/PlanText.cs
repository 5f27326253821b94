using System.Globalization;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Plan;

/// <summary>Summary of a plan: for each slot, action and reason the number of sites, and one of them as an example.</summary>
internal static class PlanText
{
    private const int FewestSlotWidth = 34;
    private const int ActionWidth = 13;
    private const int SitesWidth = 8;

    public static void Write(KernelImage image, PatchPlan plan, TextOutput output)
    {
        var disassembler = new Disassembler(plan.Bitness, new KernelNames(image).NameOf);
        IReadOnlyList<PlanGroup> groups = PlanGroup.Of(plan);
        int slotWidth = groups.Select(g => plan[g.First].Label.Length + 2).Append(FewestSlotWidth).Max();
        output.Column("slot", slotWidth, Ink.Faint).Column("done", ActionWidth, Ink.Faint).Column("sites", SitesWidth, Ink.Faint)
            .Line("for example", Ink.Faint);
        foreach (PlanGroup group in groups)
        {
            SiteDecision first = plan[group.First];
            output.Column(first.Label, slotWidth).Column(Words.Of(first.Action), ActionWidth, Words.InkOf(first.Action))
                .Column(string.Create(CultureInfo.InvariantCulture, $"{group.Count,5}"), SitesWidth)
                .Line($"{disassembler.Line(first.NewBytes, first.Address)}{Because(first)}");
        }

        output.Line();
        output.Write($"{plan.Backend}, rules {plan.Rules}: ", Ink.Strong).Line(plan.Summary.ToString());
        output.Line("Each site: pvpatch sites IMAGE --slot GLOB; one of them: pvpatch explain IMAGE ADDRESS.", Ink.Faint);
    }

    private static string Because(SiteDecision site) =>
        site.Reason == PatchReason.None ? "" : $"  ({Words.Of(site.Reason)}{(site.Outcome.Detail is string detail ? $": {detail}" : "")})";
}

/// <summary>Sites of a plan that share slot, action and reason.</summary>
/// <param name="First">The index of the first of them.</param>
/// <param name="Count">Their number.</param>
internal readonly record struct PlanGroup(int First, int Count)
{
    /// <summary>All groups, by type number, then in order of address.</summary>
    public static IReadOnlyList<PlanGroup> Of(PatchPlan plan)
    {
        var groups = new Dictionary<(string Label, PatchAction Action, PatchReason Reason), PlanGroup>();
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            var key = (site.Label, site.Action, site.Reason);
            groups[key] = groups.TryGetValue(key, out PlanGroup known) ? known with { Count = known.Count + 1 } : new PlanGroup(i, 1);
        }

        PlanGroup[] sorted = [.. groups.Values];
        Array.Sort(sorted, (a, b) =>
            (plan[a.First].Outcome.Type ?? int.MaxValue, a.First).CompareTo((plan[b.First].Outcome.Type ?? int.MaxValue, b.First)));
        return sorted;
    }
}
