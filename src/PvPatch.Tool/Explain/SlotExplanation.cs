using System.Globalization;
using PvPatch.Linux;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Explain;

/// <summary>Explanation of a slot: on each backend the number of its sites by action, and the places of the sites.</summary>
internal sealed class SlotExplanation(
    KernelImage image, OpSlot slot, Func<IReadOnlyList<VirtualAddress>, IReadOnlyList<PatchPlan>> plansAt, KernelNames names)
{
    private const int Shown = 10;
    private const int Width = 30;
    private static readonly CultureInfo s_culture = CultureInfo.InvariantCulture;

    private readonly List<int> _sites = SitesOf(image, slot);
    private readonly IReadOnlyList<PatchPlan> _plans = plansAt([.. SitesOf(image, slot).Select(i => image.Sites[i].Address)]);

    public void WriteText(TextOutput output)
    {
        output.Line(string.Create(s_culture, $"Slot {slot.Name}: {_sites.Count} of {image.Sites.Count} sites"), Ink.Strong);
        Field(output, "type", string.Create(s_culture, $"{slot.Index}, {(slot.Kind == SlotKind.Jump ? "jumped to" : "called")}"));
        Field(output, "on disk", image.Native[slot.Index].Target is VirtualAddress native
            ? $"the ops table holds {names.Describe(native)}" : "the ops table holds no function");
        if (_sites.Count == 0)
        {
            return;
        }

        var disassembler = new Disassembler(image.Elf.Bitness, names.NameOf);
        output.Line();
        output.Column("  backend", Width, Ink.Faint).Column("done", 13, Ink.Faint).Column("sites", 8, Ink.Faint)
            .Line("for example", Ink.Faint);
        foreach (PatchPlan plan in _plans)
        {
            string name = plan.Backend;
            foreach (List<SiteDecision> group in Groups(plan))
            {
                SiteDecision first = group[0];
                output.Column($"  {name}", Width).Column(Words.Of(first.Action), 13, Words.InkOf(first.Action))
                    .Column(string.Create(s_culture, $"{group.Count,5}"), 8)
                    .Line(disassembler.Line(first.NewBytes, first.Address));
                name = "";
            }
        }

        output.Line();
        foreach (int index in _sites.Take(Shown))
        {
            PatchSite site = image.Sites[index];
            output.Column(string.Create(s_culture, $"  site:{index}"), 14).Column(site.Address.ToString(), 20)
                .Line($"{names.PlaceOf(site.Address)} {SectionOf(site)}".Trim());
        }

        if (_sites.Count > Shown)
        {
            output.Line(
                string.Create(s_culture, $"  … and {_sites.Count - Shown} more: pvpatch sites IMAGE --slot {slot.Name}"), Ink.Faint);
        }
    }

    public ExplainSlotDocument ToDocument(string path) => new(
        path,
        slot.Name,
        slot.Index,
        image.Sites.Count,
        JsonOutput.Hex(image.Native[slot.Index].Target),
        [.. _plans.Select(
            p => new ExplainSlotBackend(p.Backend, p.Rules, [.. _sites.Select(i => JsonPart.Site(p, image.Sites[i].Address))]))]);

    private List<List<SiteDecision>> Groups(PatchPlan plan) =>
        [.. _sites.Select(i => plan.IndexContaining(image.Sites[i].Address)).GroupBy(i => (plan[i].Action, plan[i].Reason))
            .Select(g => (List<SiteDecision>)[.. g.Select(i => plan[i])])];

    private string SectionOf(PatchSite site) => image.Code.Find(site.Address, site.Budget) is { } section ? $"({section.Name})" : "";

    private static List<int> SitesOf(KernelImage image, OpSlot slot)
    {
        var found = new List<int>();
        for (int i = 0; i < image.Sites.Count; i++)
        {
            if (image.Sites[i].Slot == slot.Index)
            {
                found.Add(i);
            }
        }

        return found;
    }

    private static void Field(TextOutput output, string name, string value) => output.Column($"  {name}", 15, Ink.Faint).Line(value);
}
