using System.Text.Json;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Sites;

/// <summary>A kernel's sites as JSON.</summary>
internal sealed record SitesDocument(
    string Image, string? Backend, string? Rules, int Total, IReadOnlyList<JsonPart> Sites, IReadOnlyList<JsonPart> Diagnostics)
    : ToolDocument("pvpatch-sites")
{
    public static SitesDocument Of(
        KernelImage image, PatchPlan? plan, bool[] chosen, string path, IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        var sites = new List<JsonPart>();
        foreach (ref readonly PatchSite site in image.Sites.Sites)
        {
            if (site.Slot < chosen.Length && chosen[site.Slot])
            {
                sites.Add(plan is null ? Unplanned(image, site) : JsonPart.Site(plan, site.Address));
            }
        }

        return new SitesDocument(path, plan?.Backend, plan?.Rules, image.Sites.Count, sites, JsonPart.Of(diagnostics));
    }

    private static JsonPart Unplanned(KernelImage image, PatchSite site)
    {
        image.Code.TryGetBytes(site.Address, site.Budget, out Span<byte> old);
        var unplanned = new UnplannedSite(
            JsonOutput.Hex(site.Address),
            image.Code.Find(site.Address, site.Budget)!.Name,
            image.Layout[site.Slot].Name,
            site.Slot,
            site.Budget,
            site.Clobbers.ToString(image.Bitness),
            HexBytes.Format(old));
        return new JsonPart(json => JsonSerializer.Serialize(json, unplanned, ToolJson.Default.UnplannedSite));
    }
}

/// <summary>
/// A site that could not be planned, in the members that <see cref="PlanJson.WriteSite"/> gives to one that is, as far as they are known.
/// </summary>
internal sealed record UnplannedSite(string Address, string Section, string Slot, int Type, int Length, string Clobbers, string Old);
