using System.Globalization;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Sites;

/// <summary>A kernel's sites as text, one a line.</summary>
internal static class SitesText
{
    private const int AddressWidth = 20;
    private const int SectionWidth = 12;
    private const int BytesWidth = 6;
    private const int ActionWidth = 13;
    private const int CodeWidth = 48;

    public static void Write(KernelImage image, PatchPlan? plan, bool[] chosen, TextOutput output)
    {
        var disassembler = new Disassembler(image.Elf.Bitness, new KernelNames(image).NameOf);
        int slotWidth = Math.Max(6, image.Layout.Slots.Max(s => chosen[s.Index] ? s.Name.Length : 0) + 2);
        output.Column("address", AddressWidth, Ink.Faint).Column("section", SectionWidth, Ink.Faint).Column("slot", slotWidth, Ink.Faint)
            .Column("bytes", BytesWidth, Ink.Faint).Column("original", plan is null ? 0 : CodeWidth, Ink.Faint);
        output.Line(plan is null ? "" : plan.Backend, Ink.Faint);
        int shown = 0;
        foreach (ref readonly PatchSite site in image.Sites.Sites)
        {
            if (site.Slot >= chosen.Length || !chosen[site.Slot])
            {
                continue;
            }

            shown++;
            image.Code.TryGetBytes(site.Address, site.Budget, out Span<byte> old);
            output.Column(site.Address.ToString(), AddressWidth).Column(image.Code.Find(site.Address, site.Budget)!.Name, SectionWidth)
                .Column(image.Layout[site.Slot].Name, slotWidth)
                    .Column(string.Create(CultureInfo.InvariantCulture, $"{site.Budget,4}"), BytesWidth)
                .Column(disassembler.Line(old, site.Address), plan is null ? 0 : CodeWidth);
            if (plan is not null)
            {
                SiteDecision decision = plan[plan.IndexContaining(site.Address)];
                output.Column(Words.Of(decision.Action), ActionWidth, Words.InkOf(decision.Action))
                    .Write(disassembler.Line(decision.NewBytes, site.Address));
            }

            output.Line();
        }

        output.Line(string.Create(CultureInfo.InvariantCulture, $"{shown} of {image.Sites.Count} sites"), Ink.Strong);
    }
}
