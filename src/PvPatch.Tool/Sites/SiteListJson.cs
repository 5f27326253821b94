using System.Text.Json;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Sites;

/// <summary>A kernel's sites for scripts.</summary>
internal static class SiteListJson
{
    public static void Write(
        KernelImage image, PatchPlan? plan, bool[] chosen, string path, IReadOnlyList<PatchDiagnostic> diagnostics, Utf8JsonWriter json)
    {
        JsonOutput.Start(json, "pvpatch-sites");
        json.WriteString("image", path);
        if (plan is not null)
        {
            json.WriteString("backend", plan.Backend);
            json.WriteString("rules", plan.Rules);
        }

        json.WriteNumber("total", image.Sites.Count);
        json.WriteStartArray("sites");
        foreach (ref readonly PatchSite site in image.Sites.Sites)
        {
            if (site.Slot < chosen.Length && chosen[site.Slot])
            {
                WriteSite(image, plan, site, json);
            }
        }

        json.WriteEndArray();
        JsonOutput.WriteDiagnostics(json, diagnostics);
        json.WriteEndObject();
    }

    private static void WriteSite(KernelImage image, PatchPlan? plan, PatchSite site, Utf8JsonWriter json)
    {
        if (plan is not null)
        {
            PlanJson.WriteSite(plan, plan.IndexContaining(site.Address), json);
            return;
        }

        image.Code.TryGetBytes(site.Address, site.Budget, out Span<byte> old);
        SiteJson.Write(site, image.Layout[site.Slot], image.Code.Find(site.Address, site.Budget)!.Name, old, json);
    }
}
