using System.Buffers;
using System.Globalization;
using System.Text.Json;

namespace PvPatch.Plans;

/// <summary>Differences of plans as JSON.</summary>
internal static class PlanDiffJson
{
    /// <summary>The value of the member <c>format</c>.</summary>
    public const string Format = "pvpatch-diff";

    /// <summary>The value of the member <c>version</c>. It grows when something is taken away or changes its meaning, not when something is added.</summary>
    public const int Version = 1;

    private static readonly PlanDifferenceKinds[] s_kinds = [.. Enum.GetValues<PlanDifferenceKinds>().Where(static k => k != PlanDifferenceKinds.None)];

    /// <summary>Writes the differences as one JSON object.</summary>
    /// <param name="diff">The differences.</param>
    /// <param name="json">Where to. Not flushed.</param>
    public static void Write(PlanDiff diff, Utf8JsonWriter json)
    {
        ArgumentNullException.ThrowIfNull(diff);
        ArgumentNullException.ThrowIfNull(json);
        json.WriteStartObject();
        json.WriteString("format", Format);
        json.WriteNumber("version", Version);
        WritePlan("first", diff.First, json);
        WritePlan("second", diff.Second, json);
        json.WriteNumber("common", diff.Common);
        json.WriteStartObject("counts");
        foreach (PlanDifferenceKinds kind in s_kinds)
        {
            json.WriteNumber(Name(kind), diff.Count(kind));
        }

        json.WriteEndObject();
        json.WriteStartArray("differences");
        foreach (PlanDifference difference in diff.Differences)
        {
            Write(difference, json);
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>Writes the differences as UTF-8 text.</summary>
    /// <param name="diff">The differences.</param>
    /// <param name="indented">Whether to break lines.</param>
    /// <returns>The text.</returns>
    public static byte[] ToUtf8(PlanDiff diff, bool indented = false)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, new JsonWriterOptions { Indented = indented }))
        {
            Write(diff, json);
        }

        return buffer.WrittenSpan.ToArray();
    }

    private static void WritePlan(string name, PatchPlan plan, Utf8JsonWriter json)
    {
        json.WriteStartObject(name);
        json.WriteString("backend", plan.Backend);
        json.WriteString("rules", plan.Rules);
        json.WriteNumber("bitness", plan.Bitness);
        json.WriteNumber("sites", plan.Count);
        json.WriteEndObject();
    }

    private static void Write(PlanDifference difference, Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("address", Hex(difference.Address));
        json.WriteNumber("length", difference.Length);
        json.WriteStartArray("kinds");
        foreach (PlanDifferenceKinds kind in s_kinds.Where(k => (difference.Kinds & k) != 0))
        {
            json.WriteStringValue(Name(kind));
        }

        json.WriteEndArray();
        WriteSite("first", difference.First, json);
        WriteSite("second", difference.Second, json);
        json.WriteEndObject();
    }

    private static void WriteSite(string name, SiteDecision? site, Utf8JsonWriter json)
    {
        if (site is not SiteDecision there)
        {
            return;
        }

        json.WriteStartObject(name);
        json.WriteString("section", there.Section);
        json.WriteString("slot", there.Label);
        json.WriteString("action", JsonNamingPolicy.CamelCase.ConvertName(there.Action.ToString()));
        json.WriteString("reason", JsonNamingPolicy.CamelCase.ConvertName(there.Reason.ToString()));
        json.WriteString("old", HexBytes.Format(there.OldBytes));
        json.WriteString("new", HexBytes.Format(there.NewBytes));
        if (there.Target is VirtualAddress target)
        {
            json.WriteString("target", Hex(target));
        }

        json.WriteEndObject();
    }

    private static string Name(PlanDifferenceKinds kind) => JsonNamingPolicy.CamelCase.ConvertName(kind.ToString());

    private static string Hex(VirtualAddress address) => string.Create(CultureInfo.InvariantCulture, $"0x{address.Value:x}");
}
