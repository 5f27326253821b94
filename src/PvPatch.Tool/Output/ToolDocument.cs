using System.Text.Json;
using System.Text.Json.Serialization;
using PvPatch.Plans;
using PvPatch.Tool.Allowed;
using PvPatch.Tool.Audit;
using PvPatch.Tool.Demo;
using PvPatch.Tool.Explain;
using PvPatch.Tool.Info;
using PvPatch.Tool.Layout;
using PvPatch.Tool.Patch;
using PvPatch.Tool.Revert;
using PvPatch.Tool.Sites;

namespace PvPatch.Tool.Output;

/// <summary>Common members of the tool's JSON documents. Members are written in order of declaration; null ones are left out.</summary>
/// <param name="Format">The name of the document.</param>
/// <param name="Version">The version of its schema, which grows when something is taken away or changes its meaning.</param>
internal abstract record ToolDocument(
    [property: JsonPropertyOrder(-2)] string Format, [property: JsonPropertyOrder(-1)] int Version = 1);

/// <summary>The document of a command that failed.</summary>
internal sealed record FailureDocument(int ExitCode, IReadOnlyList<JsonPart> Diagnostics) : ToolDocument("pvpatch-failure");

/// <summary>A part of a document that the library writes, or that has members of its own choice.</summary>
/// <param name="Write">Writes one value.</param>
[JsonConverter(typeof(JsonPartConverter))]
internal readonly record struct JsonPart(Action<Utf8JsonWriter> Write)
{
    /// <summary>A whole plan, as <c>plan --json</c> writes it.</summary>
    public static JsonPart Of(PatchPlan plan) => new(json => PlanJson.Write(plan, json));

    /// <summary>The site of a plan that has a byte at an address.</summary>
    public static JsonPart Site(PatchPlan plan, VirtualAddress address) =>
        new(json => PlanJson.WriteSite(plan, plan.IndexContaining(address), json));

    /// <summary>Findings.</summary>
    public static IReadOnlyList<JsonPart> Of(IEnumerable<PatchDiagnostic> diagnostics) =>
        [.. diagnostics.Select(static d => new JsonPart(json => DiagnosticJson.Write(d, json)))];
}

/// <summary>Writes such a part.</summary>
internal sealed class JsonPartConverter : JsonConverter<JsonPart>
{
    public override JsonPart Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        throw new NotSupportedException();

    public override void Write(Utf8JsonWriter writer, JsonPart value, JsonSerializerOptions options) => value.Write(writer);
}

/// <summary>Serialisation of the documents, generated at build time: no reflection.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(AllowedDocument))]
[JsonSerializable(typeof(AuditDocument))]
[JsonSerializable(typeof(DemoDocument))]
[JsonSerializable(typeof(ExplainDocument))]
[JsonSerializable(typeof(ExplainSlotDocument))]
[JsonSerializable(typeof(FailureDocument))]
[JsonSerializable(typeof(InfoDocument))]
[JsonSerializable(typeof(LayoutDocument))]
[JsonSerializable(typeof(ObjectSitesDocument))]
[JsonSerializable(typeof(PatchDocument))]
[JsonSerializable(typeof(RevertDocument))]
[JsonSerializable(typeof(SitesDocument))]
[JsonSerializable(typeof(UnplannedSite))]
internal sealed partial class ToolJson : JsonSerializerContext;
