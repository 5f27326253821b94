using PvPatch.Analysis;
using PvPatch.Linux;
using PvPatch.Linux.Audit;
using PvPatch.Plans;

namespace PvPatch.Tool.Audit;

/// <summary>An audit for scripts. Of the sites only those that are not proved, or break their slot's convention, are listed.</summary>
internal sealed record AuditDocument(string Image, int Total,
    IReadOnlyList<AuditBackend> Backends, IReadOnlyList<AuditFunction> Unconventional) : ToolDocument("pvpatch-audit")
{
    public static AuditDocument Of(string path, KernelImage image, IReadOnlyList<AuditReport> reports, KernelAudit audit)
    {
        var names = new KernelNames(image);
        return new AuditDocument(
            path,
            image.Sites.Count,
            [.. reports.Select(r => Backend(r, names))],
            [.. audit.Analyzer.Unconventional.Select(f =>
                new AuditFunction(JsonOutput.Hex(f.Address), names.NameOf(f.Address.Value), f.Destroys.ToString(), f.IsStackBalanced))]);
    }

    private static AuditBackend Backend(AuditReport report, KernelNames names) => new(
        report.Plan.Backend,
        report.Proved,
        report.Undecided,
        report.Contradictions,
        report.Broken,
        [.. report.Causes().Select(static c => new AuditCause(c.Cause, c.Count))],
        [.. report.Slots.Select(s => new AuditSlot(
            s.Slot.Name, JsonOutput.Hex(s.Effects.Address), names.NameOf(s.Effects.Address.Value), s.Effects.Destroys.ToString(),
            s.Breaks.ToString(), s.Spared.ToString(), s.Effects.UsesRedZone))],
        [.. report.Sites.Where(static s => s.Verdict != AuditVerdict.Proved || !s.Breaks.IsEmpty).Select(s => Site(report, s, names))]);

    private static AuditSite Site(AuditReport report, AuditedSite site, KernelNames names)
    {
        SiteDecision decision = report.Plan[report.Plan.IndexContaining(site.Site.Address)];
        return new AuditSite(
            JsonOutput.Hex(site.Site.Address),
            names.PlaceOf(site.Site.Address),
            site.Slot.Name,
            JsonOutput.Hex(decision.Target),
            JsonOutput.Name(site.Verdict),
            AuditReport.Cause(site),
            site.Destroys.ToString(),
            site.Breaks.ToString(),
            site.Use is RegisterUse use ? new AuditUse(use.Register.ToString(), JsonOutput.Hex(use.Address),
                [.. use.Path.Select(static p => JsonOutput.Hex(p))], report.Way(use)) : null);
    }
}

internal sealed record AuditBackend(
    string Backend, int Proved, int Undecided, int Contradictions, int BreaksConvention, IReadOnlyList<AuditCause> Causes,
    IReadOnlyList<AuditSlot> Slots, IReadOnlyList<AuditSite> Sites);

internal sealed record AuditSlot(string Slot, string Target, string? Name, string Destroys, string Breaks, string Spared, bool RedZone);

internal sealed record AuditCause(string Cause, int Count);

internal sealed record AuditSite(
    string Address, string? Place, string Slot, string? Target, string Verdict, string Cause, string Destroys, string Breaks,
    AuditUse? Use);

internal sealed record AuditUse(string Register, string Address, IReadOnlyList<string> Path, IReadOnlyList<string> Code);

internal sealed record AuditFunction(string Address, string? Name, string Destroys, bool StackBalanced);
