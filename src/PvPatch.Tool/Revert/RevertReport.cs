using System.Globalization;
using PvPatch.Plans;

namespace PvPatch.Tool.Revert;

/// <summary>Report of <c>revert</c>.</summary>
internal sealed record RevertReport(string Image, string Output, string By, long Size, PatchPlan Plan, ApplyResult Reverted)
{
    public void WriteText(TextOutput output)
    {
        output.Line(string.Create(CultureInfo.InvariantCulture,
            $"Wrote {Output}: {Size:n0} bytes, {Reverted.Written} of {Plan.Count} places given their original bytes back."), Ink.Strong);
        if (Reverted.Written == 0)
        {
            output.Line("  All of them held their original bytes: the image was not patched.");
        }
        else
        {
            output.Line($"  patched for {Plan.Backend} by the rules {Plan.Rules}, as {By} says");
        }
    }

    public RevertDocument ToDocument() => new(Image, Output, By, Plan.Backend, Plan.Rules, Size, Plan.Summary.Total, Reverted.Written, []);
}

/// <summary>The report as JSON.</summary>
internal sealed record RevertDocument(
    string Image, string Output, string By, string Backend, string Rules, long Size, int Sites, int Written,
    IReadOnlyList<JsonPart> Diagnostics)
    : ToolDocument("pvpatch-revert");
