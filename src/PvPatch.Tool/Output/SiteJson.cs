using System.Text.Json;
using PvPatch.Ops;
using PvPatch.Plans;
using PvPatch.Sites;

namespace PvPatch.Tool.Output;

/// <summary>One site as all documents write it: the members of a stored plan's sites, in their order.</summary>
internal static class SiteJson
{
    /// <summary>Writes the members of a site that is planned, into an object that is open.</summary>
    public static void WriteMembers(Utf8JsonWriter json, SiteDecision site)
    {
        PlanOutcome outcome = site.Outcome;
        WritePlace(json, site.Address, site.Section, site.Label, outcome.Type, site.Length, outcome.Clobbers);
        json.WriteString("action", Name(site.Action.ToString()));
        json.WriteString("reason", Name(site.Reason.ToString()));
        json.WriteString("old", HexBytes.Format(site.OldBytes));
        json.WriteString("new", HexBytes.Format(site.NewBytes));
        if (outcome.Target is VirtualAddress target)
        {
            json.WriteString("target", JsonOutput.Hex(target));
        }

        WriteOptional(json, "targetName", outcome.TargetName);
        WriteOptional(json, "detail", outcome.Detail);
    }

    /// <summary>Writes the members of a site that could not be planned: what the site table and the image say.</summary>
    public static void WriteMembers(Utf8JsonWriter json, PatchSite site, OpSlot slot, string section, ReadOnlySpan<byte> old)
    {
        WritePlace(json, site.Address, section, slot.Name, slot.Index, site.Budget, site.Clobbers);
        json.WriteString("old", HexBytes.Format(old));
    }

    private static void WritePlace(Utf8JsonWriter json, VirtualAddress address, string section, string slot, int? type, int length, RegisterSet? clobbers)
    {
        json.WriteString("address", JsonOutput.Hex(address));
        json.WriteString("section", section);
        json.WriteString("slot", slot);
        if (type is int number)
        {
            json.WriteNumber("type", number);
        }

        json.WriteNumber("length", length);
        if (clobbers is RegisterSet set)
        {
            json.WriteString("clobbers", set.ToString());
        }
    }

    private static string Name(string value) => JsonNamingPolicy.CamelCase.ConvertName(value);

    private static void WriteOptional(Utf8JsonWriter json, string name, string? value)
    {
        if (value is not null)
        {
            json.WriteString(name, value);
        }
    }
}
