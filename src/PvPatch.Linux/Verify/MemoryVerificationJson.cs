using System.Globalization;
using System.Text.Json;
using PvPatch.Linux.Dumps;
using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>The JSON form of a <see cref="MemoryVerification"/>. Sites without a finding are counted, not listed.</summary>
internal static class MemoryVerificationJson
{
    /// <summary>The value of the member <c>format</c>.</summary>
    public const string Format = "pvpatch-verification";

    /// <summary>
    /// The value of the member <c>version</c>. It grows when something is taken away or changes its meaning, not when something is added.
    /// </summary>
    public const int Version = 1;

    /// <summary>Writes a result as one JSON object.</summary>
    /// <param name="result">The result.</param>
    /// <param name="json">The writer; not flushed.</param>
    public static void Write(MemoryVerification result, Utf8JsonWriter json) => Write(result, json, [], static _ => { });

    /// <summary>Writes a result as one JSON object, with findings of the caller's own.</summary>
    /// <param name="result">The result.</param>
    /// <param name="json">The writer; not flushed.</param>
    /// <param name="more">Findings that come first in the member <c>diagnostics</c>.</param>
    /// <param name="about">Writes members that say what was compared, and by what.</param>
    public static void Write(
        MemoryVerification result, Utf8JsonWriter json, IReadOnlyList<PatchDiagnostic> more, Action<Utf8JsonWriter> about)
    {
        ArgumentNullException.ThrowIfNull(more);
        ArgumentNullException.ThrowIfNull(result);
        ArgumentNullException.ThrowIfNull(json);
        json.WriteStartObject();
        json.WriteString("format", Format);
        json.WriteNumber("version", Version);
        about(json);
        json.WriteString("state", Name(result.State));
        if (result.State is MemoryState.Patched or MemoryState.Mixed or MemoryState.Tampered)
        {
            json.WriteString("backend", result.Best.Backend);
        }

        json.WriteBoolean("complete", result.IsComplete);
        WriteMemory(result.Memory, json);
        WriteCounts(result, json);
        json.WriteStartArray("diagnostics");
        foreach (PatchDiagnostic diagnostic in more.Concat(result.Memory.Diagnostics).Concat(result.ToDiagnostics(0)))
        {
            DiagnosticJson.Write(diagnostic, json);
        }

        json.WriteEndArray();
        json.WriteStartArray("sites");
        foreach (SiteVerification site in result.Sites.Where(s => s.State != MemorySiteState.Patched || !s.Matches(result.Best.Index)))
        {
            WriteSite(result, site, json);
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static void WriteMemory(KernelMemory memory, Utf8JsonWriter json)
    {
        json.WriteStartObject("memory");
        json.WriteString("path", memory.File.Path);
        json.WriteString("kind", Name(memory.File.Kind));
        json.WriteBoolean("flattened", memory.File.IsFlattened);
        json.WriteString("addresses", memory.IsPhysical ? "physical" : "virtual");
        json.WriteString("displacement", KernelMemory.Signed(memory.Displacement));
        if (memory.Slide is long slide)
        {
            json.WriteString("slide", KernelMemory.Signed(slide));
        }

        json.WriteString("foundBy", Name(memory.FoundBy));
        json.WriteNumber("piecesCompared", memory.PiecesCompared);
        json.WriteNumber("piecesMatched", memory.PiecesMatched);
        json.WriteEndObject();
    }

    private static void WriteCounts(MemoryVerification result, Utf8JsonWriter json)
    {
        json.WriteStartObject("counts");
        json.WriteNumber("sites", result.Sites.Count);
        json.WriteNumber("compared", result.Compared);
        json.WriteNumber("notCompared", result.Sites.Count - result.Compared);
        json.WriteNumber("missing", result.Missing);
        foreach (MemorySiteState state in Enum.GetValues<MemorySiteState>())
        {
            json.WriteNumber(Name(state), result.Count(state));
        }

        json.WriteEndObject();
        json.WriteStartArray("candidates");
        foreach (CandidateMatch candidate in result.Candidates)
        {
            json.WriteStartObject();
            json.WriteString("backend", candidate.Backend);
            json.WriteString("rules", candidate.Plan.Rules);
            json.WriteNumber("matched", candidate.Matched);
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static void WriteSite(MemoryVerification result, SiteVerification site, Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("address", string.Create(CultureInfo.InvariantCulture, $"0x{site.Address.Value:x}"));
        json.WriteString("section", site.Decision.Section);
        json.WriteString("slot", site.Decision.Label);
        json.WriteNumber("length", site.Decision.Length);
        json.WriteString("state", Name(site.State));
        json.WriteString("found", HexBytes.Format(site.Found.Span));
        json.WriteString("original", HexBytes.Format(site.Decision.OldBytes));
        json.WriteStartArray("of");
        foreach (string name in site.IsOriginal ? site.Backends.Prepend(AllowedSite.Original) : site.Backends)
        {
            json.WriteStringValue(name);
        }

        json.WriteEndArray();
        if (site.State == MemorySiteState.Tampered)
        {
            AllowedSites.WriteAllowed(result.AllowedAt(site), json);
        }

        json.WriteEndObject();
    }

    private static string Name<T>(T value)
        where T : struct, Enum => JsonNamingPolicy.CamelCase.ConvertName(value.ToString());
}
