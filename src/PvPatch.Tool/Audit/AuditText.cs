using System.Globalization;
using PvPatch.Analysis;
using PvPatch.Linux;
using PvPatch.Linux.Audit;
using PvPatch.Plans;

namespace PvPatch.Tool.Audit;

/// <summary>
/// An audit for people: the counts of each backend, why sites are undecided, and every contradiction with its way to the read.
/// </summary>
internal static class AuditText
{
    private const int NameWidth = 10;
    private const int CountWidth = 15;

    public static void Write(KernelImage image, IReadOnlyList<AuditReport> reports, TextOutput output)
    {
        var names = new KernelNames(image);
        output.Column("backend", NameWidth, Ink.Faint).Column("sites", CountWidth, Ink.Faint).Column("proved", CountWidth, Ink.Faint)
            .Column("undecided", CountWidth, Ink.Faint).Column("contradictions", CountWidth, Ink.Faint).Line("break convention", Ink.Faint);
        foreach (AuditReport report in reports)
        {
            output.Column(report.Plan.Backend, NameWidth, Ink.Strong).Column(Text(report.Sites.Count), CountWidth)
                .Column(Text(report.Proved), CountWidth, Ink.Good)
                .Column(Text(report.Undecided), CountWidth).Column(
                    Text(report.Contradictions), CountWidth, report.Contradictions > 0 ? Ink.Bad : Ink.Good).Line(Text(report.Broken));
        }

        foreach (AuditReport report in reports)
        {
            foreach ((string cause, int count) in report.Causes())
            {
                output.Line(string.Create(CultureInfo.InvariantCulture, $"{report.Plan.Backend}: {count} undecided: {cause}"));
            }

            foreach (AuditedSlot slot in report.BrokenSlots)
            {
                output.Line(
                    $"{report.Plan.Backend}: slot {slot.Slot.Name} holds {names.Describe(slot.Effects.Address)}, which destroys "
                    + $"{Words.Of(slot.Breaks, 64)}; its convention keeps them", Ink.Bad);
            }

            foreach (AuditedSite site in report.Sites.Where(static s => s.Verdict == AuditVerdict.Contradiction || !s.Breaks.IsEmpty))
            {
                WriteSite(report, site, names, output);
            }
        }
    }

    private static void WriteSite(AuditReport report, AuditedSite site, KernelNames names, TextOutput output)
    {
        SiteDecision decision = report.Plan[report.Plan.IndexContaining(site.Site.Address)];
        string target = decision.Target is VirtualAddress address ? $", {names.Describe(address)}" : "";
        output.Line();
        output.Line(
            $"{report.Plan.Backend}: {site.Slot.Name} at {site.Site.Address} {names.PlaceOf(site.Site.Address)}{target} destroys "
            + $"{Words.Of(site.Destroys, 64)}", Ink.Strong);
        if (!site.Breaks.IsEmpty)
        {
            output.Line($"  the slot's convention keeps {Words.Of(site.Breaks, 64)}");
        }

        if (site.Use is RegisterUse use)
        {
            output.Line($"  {Words.Of(use.Register, 64)} is read at {use.Address} {names.PlaceOf(use.Address)}: {AuditReport.Cause(site)}");
            foreach (string line in report.Way(use))
            {
                output.Line($"    {line}");
            }
        }
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
