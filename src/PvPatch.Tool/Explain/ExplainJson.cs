using System.Text.Json;
using PvPatch.Linux.Tables;
using PvPatch.Plans;

namespace PvPatch.Tool.Explain;

/// <summary>One site explained to scripts.</summary>
internal static class ExplainJson
{
    public static void Write(SiteExplanation site, string path, Utf8JsonWriter json)
    {
        var disassembler = new Disassembler(site.Image.Elf.Bitness, site.Names.NameOf);
        JsonOutput.Start(json, "pvpatch-explain");
        json.WriteString("image", path);
        json.WriteNumber("index", site.Index);
        json.WriteNumber("total", site.Image.Sites.Count);
        json.WriteString("address", JsonOutput.Hex(site.Site.Address));
        json.WriteString("slot", site.Slot.Name);
        if (site.Names.PlaceOf(site.Site.Address) is string place)
        {
            json.WriteString("place", place);
        }

        if (site.FileOffset is long offset)
        {
            json.WriteNumber("fileOffset", offset);
        }

        json.WriteBoolean("clobbersRespected", site.ClobbersCount);
        if (site.Native.Target is VirtualAddress native)
        {
            json.WriteString("native", JsonOutput.Hex(native));
        }

        WriteCode(json, "oldCode", disassembler, site.DecisionOf(site.Plans[0]).OldBytes, site.Site.Address);
        WriteAlternatives(json, site);
        json.WriteStartArray("backends");
        foreach (PatchPlan plan in site.Plans)
        {
            json.WriteStartObject();
            json.WriteString("backend", plan.Backend);
            json.WriteString("rules", plan.Rules);
            json.WritePropertyName("site");
            PlanJson.WriteSite(plan, plan.IndexContaining(site.Site.Address), json);
            WriteCode(json, "newCode", disassembler, site.DecisionOf(plan).NewBytes, site.Site.Address);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static void WriteCode(Utf8JsonWriter json, string name, Disassembler disassembler, ReadOnlySpan<byte> bytes, VirtualAddress start)
    {
        json.WriteStartArray(name);
        foreach (InstructionText instruction in disassembler.Decode(bytes, start))
        {
            json.WriteStartObject();
            json.WriteString("address", JsonOutput.Hex(instruction.Address));
            json.WriteNumber("length", instruction.Length);
            json.WriteString("text", instruction.Text);
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static void WriteAlternatives(Utf8JsonWriter json, SiteExplanation site)
    {
        json.WriteStartArray("alternatives");
        foreach (AltInstr record in site.Alternatives)
        {
            json.WriteStartObject();
            json.WriteString("condition", site.Condition(record));
            json.WriteNumber("feature", record.Feature);
            json.WriteBoolean("not", record.IsNot);
            json.WriteBoolean("directCall", record.IsDirectCall);
            json.WriteString("replacementAddress", JsonOutput.Hex(record.ReplacementAddress));
            json.WriteString("replacement", HexBytes.Format(site.Replacement(record).Span));
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }
}
