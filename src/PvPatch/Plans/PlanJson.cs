using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>
/// Plans as JSON: written for scripts, read back to be applied, verified or reverted later. <c>docs/json.md</c> gives the schema.
/// </summary>
/// <remarks>
/// Everything of a plan is stored but its log. Of the plans it was made from only the last is kept, by the bytes it left at each site: an
/// image that holds those of one further behind is refused.
/// </remarks>
public static class PlanJson
{
    /// <summary>The value of the member <c>format</c>.</summary>
    public const string Format = "pvpatch-plan";

    /// <summary>
    /// The value of the member <c>version</c>. It grows when something is taken away or changes its meaning, not when something is added.
    /// </summary>
    public const int Version = 1;

    /// <summary>Writes a plan as one JSON object.</summary>
    /// <param name="plan">The plan.</param>
    /// <param name="json">Where to. Not flushed.</param>
    public static void Write(PatchPlan plan, Utf8JsonWriter json)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(json);
        json.WriteStartObject();
        json.WriteString("format", Format);
        json.WriteNumber("version", Version);
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

    /// <summary>Writes one site as one JSON object, just as it stands in the member <c>sites</c> of the plan.</summary>
    /// <param name="plan">The plan.</param>
    /// <param name="index">The site's place in order of address.</param>
    /// <param name="json">Where to. Not flushed.</param>
    public static void WriteSite(PatchPlan plan, int index, Utf8JsonWriter json)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(json);
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, plan.Count);
        SiteDecision site = plan[index];
        PlanOutcome outcome = site.Outcome;
        json.WriteStartObject();
        json.WriteString("address", HexBytes.Format(site.Address));
        json.WriteString("section", site.Section);
        json.WriteString("slot", outcome.Label);
        WriteOptional(json, "type", outcome.Type);
        json.WriteNumber("length", site.Length);
        if (outcome.Clobbers is { } clobbers)
        {
            json.WriteString("clobbers", clobbers.ToString(plan.Bitness));
        }

        json.WriteString("action", Name(outcome.Action));
        json.WriteString("reason", Name(outcome.Reason));
        json.WriteString("old", HexBytes.Format(site.OldBytes));
        json.WriteString("new", HexBytes.Format(site.NewBytes));
        Span<byte> scratch = stackalloc byte[SiteBytes.MaxLength];
        if (plan.BytesLeftByPredecessor(index, scratch) is { IsEmpty: false } left && !left.SequenceEqual(site.OldBytes))
        {
            json.WriteString("replaces", HexBytes.Format(left));
        }

        if (outcome.Target is VirtualAddress target)
        {
            json.WriteString("target", HexBytes.Format(target));
        }

        WriteOptional(json, "targetName", outcome.TargetName);
        WriteOptional(json, "detail", outcome.Detail);
        json.WriteEndObject();
    }

    /// <summary>Writes a plan as UTF-8 text.</summary>
    /// <param name="plan">The plan.</param>
    /// <param name="indented">Whether to break lines.</param>
    /// <returns>The text.</returns>
    public static byte[] ToUtf8(PatchPlan plan, bool indented = false)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, new JsonWriterOptions { Indented = indented }))
        {
            Write(plan, json);
        }

        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>Reads a plan, or throws.</summary>
    /// <param name="utf8">The text.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="PatchException">The text is no plan (PV5001) or contradicts itself (PV5002).</exception>
    public static PatchPlan Read(ReadOnlyMemory<byte> utf8) =>
        TryRead(utf8, out PatchPlan? plan, out PatchDiagnostic? error) ? plan : throw new PatchException(error);

    /// <summary>Reads a plan.</summary>
    /// <param name="utf8">The text.</param>
    /// <param name="plan">The plan.</param>
    /// <param name="error">Why there is none: it is no plan or of a later version (PV5001), or contradicts itself (PV5002).</param>
    /// <returns>Whether there is a plan.</returns>
    public static bool TryRead(
        ReadOnlyMemory<byte> utf8, [NotNullWhen(true)] out PatchPlan? plan, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        plan = null;
        error = null;
        try
        {
            using JsonDocument document = JsonDocument.Parse(utf8, new JsonDocumentOptions { MaxDepth = 16 });
            plan = PlanJsonReader.Read(document.RootElement);
            return true;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // InvalidOperationException: a string with half a surrogate pair, which the parser lets pass.
            error = PatchDiagnostic.Error(DiagnosticCodes.PlanFormat, "the text is not JSON") with
            {
                Found = e.Message,
                Expected = $"an object with \"format\": \"{Format}\""
            };
        }
        catch (PatchException e)
        {
            error = e.Diagnostic;
        }

        return false;
    }

    /// <summary>How the names of actions and reasons are spelt in JSON: with a small first letter.</summary>
    internal static string Name<T>(T value)
        where T : struct, Enum => JsonNamingPolicy.CamelCase.ConvertName(value.ToString());

    private static void WriteSegments(PatchPlan plan, Utf8JsonWriter json)
    {
        json.WriteStartArray("segments");
        foreach (PlanSegment segment in plan.Segments)
        {
            json.WriteStartObject();
            json.WriteString("name", segment.Name);
            json.WriteString("address", HexBytes.Format(segment.Address));
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
                json.WriteNumber(Name(action), summary.Count(action));
            }
        }

        json.WriteEndObject();
        json.WriteStartObject("leftAlone");
        foreach (PatchReason reason in Enum.GetValues<PatchReason>())
        {
            if (reason != PatchReason.None && summary.Count(reason) > 0)
            {
                json.WriteNumber(Name(reason), summary.Count(reason));
            }
        }

        json.WriteEndObject();
        json.WriteEndObject();
    }

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
