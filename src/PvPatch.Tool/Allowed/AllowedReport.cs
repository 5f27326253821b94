using System.Globalization;
using PvPatch.Linux.Verify;
using PvPatch.Plans;

namespace PvPatch.Tool.Allowed;

/// <summary>Report of <c>allowed</c>: number of byte strings and sites written.</summary>
internal sealed record AllowedReport(
    string Image, string Output, long Size, IReadOnlyList<string> Plans, int Sites, int Strings, IReadOnlyList<PatchDiagnostic> Diagnostics)
{
    /// <summary>Writes the list to a file.</summary>
    /// <param name="candidates">The machines the kernel may boot on.</param>
    /// <param name="image">The image, as the user named it.</param>
    /// <param name="output">The file to write, resolved.</param>
    /// <param name="outputPath">The file to write, as the user named it.</param>
    /// <param name="run">The command's run.</param>
    /// <exception cref="ToolFailure">It cannot be written (PV6107).</exception>
    public static AllowedReport Save(BootCandidates candidates, string image, string output, string outputPath, ToolRun run)
    {
        byte[] text = [.. AllowedSites.ToUtf8(candidates.Plans, indented: true), (byte)'\n'];
        new OutputFiles(run, image).Add(text, output, outputPath).Write();
        int sites = 0;
        int strings = 0;
        foreach (AllowedSite site in AllowedSites.Of(candidates.Plans))
        {
            sites++;
            strings += site.Allowed.Count;
        }

        return new AllowedReport(
            image, outputPath, text.Length, [.. candidates.Plans.Select(static p => p.Backend)], sites, strings, candidates.Diagnostics);
    }

    public void WriteText(TextOutput output)
    {
        output.Line(string.Create(
            CultureInfo.InvariantCulture, $"Wrote {Output}: {Strings} byte strings for {Sites} sites, {Size:n0} bytes."), Ink.Strong);
        output.Line($"  original; {string.Join("; ", Plans)}");
    }

    public AllowedDocument ToDocument() => new(Image, Output, Size, Sites, Strings, Plans, JsonPart.Of(Diagnostics));
}

/// <summary>The report as JSON.</summary>
internal sealed record AllowedDocument(
    string Image, string Output, long Size, int Sites, int Strings, IReadOnlyList<string> Backends, IReadOnlyList<JsonPart> Diagnostics)
    : ToolDocument("pvpatch-allowed-written");
