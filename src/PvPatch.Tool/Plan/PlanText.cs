using System.Globalization;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Plan;

/// <summary>A plan summed up: for each slot and each thing that is done there, how many sites, and one of them as an example.</summary>
internal static class PlanText
{
    private const int SlotWidth = 34;
    private const int ActionWidth = 13;
    private const int SitesWidth = 8;

    public static void Write(KernelImage image, PatchPlan plan, TextOutput output)
    {
        var disassembler = new Disassembler(plan.Bitness, new KernelNames(image).NameOf);
        output.Column("slot", SlotWidth, Ink.Faint).Column("done", ActionWidth, Ink.Faint).Column("sites", SitesWidth, Ink.Faint).Line("for example", Ink.Faint);
        foreach (PlanGroup group in PlanGroup.Of(plan))
        {
            SiteDecision first = plan[group.First];
            output.Column(first.Label, SlotWidth).Column(Words.Of(first.Action), ActionWidth, Words.InkOf(first.Action))
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
