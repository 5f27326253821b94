using System.Globalization;
using PvPatch.Plans;

namespace PvPatch.Tool.Patch;

/// <summary>Report of <c>patch</c>.</summary>
internal sealed record PatchReport(string Image, string Output, string? PlanFile, long Size, PatchPlan Plan, ApplyResult Applied)
{
    public void WriteText(TextOutput output)
    {
        output.Line(string.Create(CultureInfo.InvariantCulture,
            $"Wrote {Output}: {Size:n0} bytes, {Applied.Written} of {Plan.Count} places changed."), Ink.Strong);
        output.Line($"  {Plan.Backend}, rules {Plan.Rules}: {Plan.Summary}");
        if (PlanFile is not null)
        {
            output.Line($"  plan in {PlanFile}");
        }

        string source = PlanFile is null ? $"--original {Quote(Image)}" : $"--plan {Quote(PlanFile)}";
        output.Line($"To take it back: pvpatch revert {Quote(Output)} {source} -o FILE", Ink.Faint);
    }

    public PatchDocument ToDocument() => new(
        Image, Output, PlanFile, Plan.Backend, Plan.Rules, Size, Plan.Summary.Total, Applied.Written, Plan.Summary.ToString(),
        JsonPart.Of(Plan.Diagnostics));

    /// <summary>A path as a shell takes it.</summary>
    private static string Quote(string path) =>
        path.All(static c => char.IsAsciiLetterOrDigit(c) || c is '/' or '.' or '_' or '-' or '+' or ':' or '=')
            ? path : $"'{path.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}

/// <summary>The report as JSON.</summary>
internal sealed record PatchDocument(
    string Image, string Output, string? Plan, string Backend, string Rules, long Size, int Sites, int Written, string Summary,
    IReadOnlyList<JsonPart> Diagnostics)
    : ToolDocument("pvpatch-patch");
