using System.Globalization;
using System.Text.Json;

namespace PvPatch.Plans;

/// <summary>Writes plans as JSON.</summary>
internal static class PlanJsonWriter
{
    public static void Write(PatchPlan plan, Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("format", PlanJson.Format);
        json.WriteNumber("version", PlanJson.Version);
        json.WriteString("backend", plan.Backend);
        json.WriteString("rules", plan.Rules);
        json.WriteNumber("bitness", plan.Bitness);
        WriteSegments(plan, json);
        WriteSummary(plan.Summary, json);
        json.WriteStartArray("diagnostics");
        foreach (PatchDiagnostic diagnostic in plan.Diagnostics)
        {
            DiagnosticJson.Write(diagnostic, json);
        }

        json.WriteEndArray();
        json.WriteStartArray("sites");
        for (int i = 0; i < plan.Count; i++)
        {
            WriteSite(plan, i, json);
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    internal static void WriteSite(PatchPlan plan, int index, Utf8JsonWriter json)
    {
        SiteDecision site = plan[index];
        PlanOutcome outcome = site.Outcome;
        json.WriteStartObject();
        json.WriteString("address", Hex(site.Address));
        json.WriteString("section", site.Section);
        json.WriteString("slot", outcome.Label);
        WriteOptional(json, "type", outcome.Type);
        json.WriteNumber("length", site.Length);
        if (outcome.Clobbers is { } clobbers)
        {
            json.WriteString("clobbers", PlanJson.Name(clobbers));
        }

        json.WriteString("action", PlanJson.Name(outcome.Action));
        json.WriteString("reason", PlanJson.Name(outcome.Reason));
        json.WriteString("old", HexBytes.Format(site.OldBytes));
        json.WriteString("new", HexBytes.Format(site.NewBytes));
        if (plan.BytesLeftByPredecessor(index) is { IsEmpty: false } left && !left.SequenceEqual(site.OldBytes))
        {
            json.WriteString("replaces", HexBytes.Format(left));
        }

        if (outcome.Target is VirtualAddress target)
        {
            json.WriteString("target", Hex(target));
        }

        WriteOptional(json, "targetName", outcome.TargetName);
        WriteOptional(json, "detail", outcome.Detail);
        json.WriteEndObject();
    }

    private static void WriteSegments(PatchPlan plan, Utf8JsonWriter json)
    {
        json.WriteStartArray("segments");
        foreach (PlanSegment segment in plan.Segments)
        {
            json.WriteStartObject();
            json.WriteString("name", segment.Name);
            json.WriteString("address", Hex(segment.Address));
            json.WriteNumber("length", segment.Length);
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static void WriteSummary(PlanSummary summary, Utf8JsonWriter json)
    {
        json.WriteStartObject("summary");
        json.WriteNumber("sites", summary.Total);
        json.WriteStartObject("actions");
        foreach (PatchAction action in Enum.GetValues<PatchAction>())
        {
            if (summary.Count(action) > 0)
            {
                json.WriteNumber(PlanJson.Name(action), summary.Count(action));
            }
        }

        json.WriteEndObject();
        json.WriteStartObject("leftAlone");
        foreach (PatchReason reason in Enum.GetValues<PatchReason>())
        {
            if (reason != PatchReason.None && summary.Count(reason) > 0)
            {
                json.WriteNumber(PlanJson.Name(reason), summary.Count(reason));
            }
        }

        json.WriteEndObject();
        json.WriteEndObject();
    }

    private static string Hex(VirtualAddress address) => string.Create(CultureInfo.InvariantCulture, $"0x{address.Value:x}");

    private static void WriteOptional(Utf8JsonWriter json, string name, string? value)
    {
        if (value is not null)
        {
            json.WriteString(name, value);
        }
    }

    private static void WriteOptional(Utf8JsonWriter json, string name, int? value)
    {
        if (value is int number)
        {
            json.WriteNumber(name, number);
        }
    }
}
