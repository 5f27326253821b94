using System.Globalization;
using System.Text.Json;
using PvPatch.Plans;

namespace PvPatch.Tool.Revert;

/// <summary>What <c>revert</c> wrote.</summary>
internal sealed record RevertReport(string Image, string Output, string By, long Size, PatchPlan Plan, ApplyResult Reverted)
{
    public void WriteText(TextOutput output)
    {
        output.Line(string.Create(CultureInfo.InvariantCulture, $"Wrote {Output}: {Size:n0} bytes, {Reverted.Written} of {Plan.Count} places given their original bytes back."), Ink.Strong);
        if (Reverted.Written == 0)
        {
            output.Line("  All of them held their original bytes: the image was not patched.");
        }
        else
        {
            output.Line($"  patched for {Plan.Backend} by the rules {Plan.Rules}, as {By} says");
        }
    }

    public void WriteJson(Utf8JsonWriter json)
    {
        JsonOutput.Start(json, "pvpatch-revert");
        json.WriteString("image", Image);
        json.WriteString("output", Output);
        json.WriteString("by", By);
        json.WriteString("backend", Plan.Backend);
        json.WriteString("rules", Plan.Rules);
        json.WriteNumber("size", Size);
        json.WriteNumber("sites", Plan.Summary.Total);
        json.WriteNumber("written", Reverted.Written);
        JsonOutput.WriteDiagnostics(json, []);
        json.WriteEndObject();
    }
}
