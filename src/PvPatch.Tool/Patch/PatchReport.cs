using System.Globalization;
using System.Text.Json;
using PvPatch.Plans;

namespace PvPatch.Tool.Patch;

/// <summary>What <c>patch</c> wrote.</summary>
internal sealed record PatchReport(string Image, string Output, string? PlanFile, long Size, PatchPlan Plan, ApplyResult Applied)
{
    public void WriteText(TextOutput output)
    {
        output.Line(string.Create(CultureInfo.InvariantCulture, $"Wrote {Output}: {Size:n0} bytes, {Applied.Written} of {Plan.Count} places changed."), Ink.Strong);
        output.Line($"  {Plan.Backend}, rules {Plan.Rules}: {Plan.Summary}");
        if (PlanFile is not null)
        {
            output.Line($"  plan in {PlanFile}");
        }

        string source = PlanFile is null ? $"--original {Quote(Image)}" : $"--plan {Quote(PlanFile)}";
        output.Line($"To take it back: pvpatch revert {Quote(Output)} {source} -o FILE", Ink.Faint);
    }

    public void WriteJson(Utf8JsonWriter json)
    {
        JsonOutput.Start(json, "pvpatch-patch");
        json.WriteString("image", Image);
        json.WriteString("output", Output);
        if (PlanFile is not null)
        {
            json.WriteString("plan", PlanFile);
        }

        json.WriteString("backend", Plan.Backend);
        json.WriteString("rules", Plan.Rules);
        json.WriteNumber("size", Size);
        json.WriteNumber("sites", Plan.Summary.Total);
        json.WriteNumber("written", Applied.Written);
        json.WriteString("summary", Plan.Summary.ToString());
        JsonOutput.WriteDiagnostics(json, Plan.Diagnostics);
        json.WriteEndObject();
    }

    /// <summary>A path as a shell takes it.</summary>
    private static string Quote(string path) =>
        path.All(static c => char.IsAsciiLetterOrDigit(c) || c is '/' or '.' or '_' or '-' or '+' or ':' or '=') ? path : $"'{path.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}
