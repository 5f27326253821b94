using System.Text.Json;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Sites;

/// <summary>A site that could not be planned, in the members that <see cref="Plans.PlanJson.WriteSite"/> gives to one that is, as far as they are known.</summary>
internal static class SiteJson
{
    /// <summary>Writes what the site table and the image say.</summary>
    public static void Write(PatchSite site, OpSlot slot, string section, ReadOnlySpan<byte> old, Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("address", JsonOutput.Hex(site.Address));
        json.WriteString("section", section);
        json.WriteString("slot", slot.Name);
        json.WriteNumber("type", slot.Index);
        json.WriteNumber("length", site.Budget);
        json.WriteString("clobbers", site.Clobbers.ToString());
        json.WriteString("old", HexBytes.Format(old));
        json.WriteEndObject();
    }
}
