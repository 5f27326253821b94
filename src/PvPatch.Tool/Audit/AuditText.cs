using System.Globalization;
using PvPatch.Analysis;
using PvPatch.Linux;
using PvPatch.Linux.Audit;

namespace PvPatch.Tool.Audit;

/// <summary>
/// An audit as text: the counts of each backend, why sites are undecided, and every contradiction with its way to the read.
/// </summary>
internal static class AuditText
{
    private const int NameWidth = 10;
    private const int CountWidth = 15;

    public static void Write(KernelImage image, IReadOnlyList<BackendAudit> audits, TextOutput output)
    {
        var names = new KernelNames(image);
        var listing = new ReadListing(image, names);
        output.Column("backend", NameWidth, Ink.Faint).Column("sites", CountWidth, Ink.Faint).Column("proved", CountWidth, Ink.Faint)
            .Column("undecided", CountWidth, Ink.Faint).Column("contradictions", CountWidth, Ink.Faint).Line("break convention", Ink.Faint);
        foreach (BackendAudit audit in audits)
        {
            int contradictions = audit.Count(AuditVerdict.Contradiction);
            output.Column(audit.Plan.Backend, NameWidth, Ink.Strong).Column(Text(audit.Sites.Count), CountWidth)
                .Column(Text(audit.Count(AuditVerdict.Proved)), CountWidth, Ink.Good)
                .Column(Text(audit.Count(AuditVerdict.Undecided)), CountWidth)
                .Column(Text(contradictions), CountWidth, contradictions > 0 ? Ink.Bad : Ink.Good).Line(Text(audit.Broken));
        }

        foreach (BackendAudit audit in audits)
        {
            string backend = audit.Plan.Backend;
            foreach ((AuditCause cause, int count) in audit.Causes)
            {
                output.Line(string.Create(CultureInfo.InvariantCulture, $"{backend}: {count} undecided: {Of(cause)}"));
            }

            foreach (AuditedSlot slot in audit.UndecidedSlots)
            {
                output.Line(
                    $"{backend}: slot {slot.Slot.Name} holds {names.Describe(slot.Effects.Address)}, undecided: "
                    + slot.Effects.Undecided!.Message);
            }

            foreach (AuditedSlot slot in audit.BrokenSlots)
            {
                output.Line(
                    $"{backend}: slot {slot.Slot.Name} holds {names.Describe(slot.Effects.Address)}, which destroys "
                    + $"{Words.Of(slot.Breaks, 64)}; its convention keeps them", Ink.Bad);
            }

            foreach (AuditedSite site in audit.Sites.Where(static s => s.Verdict == AuditVerdict.Contradiction || !s.Breaks.IsEmpty))
            {
                WriteSite(backend, site, names, listing, output);
            }
        }
    }

    private static void WriteSite(string backend, AuditedSite site, KernelNames names, ReadListing listing, TextOutput output)
    {
        string target = site.Decision.Target is VirtualAddress address ? $", {names.Describe(address)}" : "";
        output.Line();
        output.Line(
            $"{backend}: {site.Slot.Name} at {site.Site.Address} {names.PlaceOf(site.Site.Address)}{target} destroys "
            + $"{Words.Of(site.Destroys, 64)}", Ink.Strong);
        if (!site.Breaks.IsEmpty)
        {
            output.Line($"  the slot's convention keeps {Words.Of(site.Breaks, 64)}");
        }

        if (site is { Use: RegisterUse use, Cause: AuditCause cause })
        {
            output.Line($"  {Words.Of(use.Register, 64)} is read at {use.Address} {names.PlaceOf(use.Address)}: {Of(cause)}");
            foreach (string line in listing.Lines(use))
            {
                output.Line($"    {line}");
            }
        }
    }

    private static string Of(AuditCause cause) => cause switch
    {
        AuditCause.NotFollowed => "what is called there could not be followed",
        AuditCause.Read => "an instruction reads it",
        AuditCause.PartWritten => "part of the register was written in between",
        AuditCause.Returned => "the function returns, and its caller may read it",
        AuditCause.Pushed => "it is pushed",
        AuditCause.UnknownCode => "code that is not known may read it",
        _ => cause.ToString(),
    };

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
