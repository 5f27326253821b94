using PvPatch.Analysis;
using PvPatch.Linux;
using PvPatch.Linux.Audit;

namespace PvPatch.Tool.Audit;

/// <summary>An audit as JSON. Only sites that are not proved, or break their slot's convention, are listed.</summary>
internal sealed record AuditDocument(string Image, int Total,
    IReadOnlyList<AuditBackend> Backends, IReadOnlyList<AuditFunction> Unconventional) : ToolDocument("pvpatch-audit")
{
    public static AuditDocument Of(
        string path, KernelImage image, IReadOnlyList<BackendAudit> audits, IReadOnlyList<FunctionEffects> unconventional)
    {
        var names = new KernelNames(image);
        var listing = new ReadListing(image, names);
        return new AuditDocument(
            path,
            image.Sites.Count,
            [.. audits.Select(a => Backend(a, names, listing))],
            [.. unconventional.Select(f =>
                new AuditFunction(JsonOutput.Hex(f.Address), names.NameOf(f.Address.Value), f.Destroys.ToString(), f.IsStackBalanced))]);
    }

    private static AuditBackend Backend(BackendAudit audit, KernelNames names, ReadListing listing) => new(
        audit.Plan.Backend,
        audit.Count(AuditVerdict.Proved),
        audit.Count(AuditVerdict.Undecided),
        audit.Count(AuditVerdict.Contradiction),
        audit.Broken,
        [.. audit.Causes.Select(static c => new AuditCauseCount(JsonOutput.Name(c.Cause), c.Count))],
        [.. audit.Slots.Select(s => new AuditSlot(
            s.Slot.Name, JsonOutput.Hex(s.Effects.Address), names.NameOf(s.Effects.Address.Value), s.Effects.Destroys.ToString(),
            s.Breaks.ToString(), s.Spared.ToString(), s.Effects.UsesRedZone, Finding(s.Effects.Undecided)))],
        [.. audit.Sites.Where(static s => s.Verdict != AuditVerdict.Proved || !s.Breaks.IsEmpty).Select(s => Site(s, names, listing))],
        JsonPart.Of(audit.Diagnostics));

    private static AuditSite Site(AuditedSite site, KernelNames names, ReadListing listing) => new(
        JsonOutput.Hex(site.Site.Address),
        names.PlaceOf(site.Site.Address),
        site.Slot.Name,
        JsonOutput.Hex(site.Decision.Target),
        JsonOutput.Name(site.Verdict),
        site.Cause is AuditCause cause ? JsonOutput.Name(cause) : null,
        site.Destroys.ToString(),
        site.Breaks.ToString(),
        site.Use is RegisterUse use ? new AuditUse(use.Register.ToString(), JsonOutput.Hex(use.Address),
            [.. use.Path.Select(static r => JsonOutput.Hex(r.Start))], listing.Lines(use)) : null,
        Finding(site.Undecided));

    private static JsonPart? Finding(PatchDiagnostic? diagnostic) => diagnostic is null ? null : JsonPart.Of([diagnostic])[0];
}

internal sealed record AuditBackend(
    string Backend, int Proved, int Undecided, int Contradictions, int BreaksConvention, IReadOnlyList<AuditCauseCount> Causes,
    IReadOnlyList<AuditSlot> Slots, IReadOnlyList<AuditSite> Sites, IReadOnlyList<JsonPart> Diagnostics);

internal sealed record AuditSlot(
    string Slot, string Target, string? Name, string Destroys, string Breaks, string Spared, bool RedZone, JsonPart? Finding);

internal sealed record AuditCauseCount(string Cause, int Count);

internal sealed record AuditSite(
    string Address, string? Place, string Slot, string? Target, string Verdict, string? Cause, string Destroys, string Breaks,
    AuditUse? Use, JsonPart? Finding);

internal sealed record AuditUse(string Register, string Address, IReadOnlyList<string> Path, IReadOnlyList<string> Code);

internal sealed record AuditFunction(string Address, string? Name, string Destroys, bool StackBalanced);
