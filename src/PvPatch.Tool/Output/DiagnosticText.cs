using System.Globalization;

namespace PvPatch.Tool.Output;

/// <summary>Findings as text: the message on the first line, then place, found, expected and help.</summary>
internal static class DiagnosticText
{
    private const int Shown = 10;

    public static void Write(TextOutput output, IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        foreach (PatchDiagnostic diagnostic in diagnostics.Take(Shown))
        {
            Write(output, diagnostic);
        }

        if (diagnostics.Count > Shown)
        {
            output.Line(string.Create(CultureInfo.InvariantCulture, $"… and {diagnostics.Count - Shown} more; --json lists them"));
        }
    }

    private static void Write(TextOutput output, PatchDiagnostic diagnostic)
    {
        (string word, Ink ink) = diagnostic.Severity switch
        {
            DiagnosticSeverity.Error => ("error", Ink.Bad),
            DiagnosticSeverity.Warning => ("warning", Ink.Warning),
            _ => ("note", Ink.Notice),
        };
        output.Write($"{word} {diagnostic.Code}", ink).Line($": {diagnostic.Message}");
        Field(output, "file", diagnostic.Source);
        Field(output, "place", PlaceOf(diagnostic));
        Field(output, "found", diagnostic.Found);
        Field(output, "expected", diagnostic.Expected);
        Field(output, "help", diagnostic.Help);
    }

    private static void Field(TextOutput output, string name, string? value)
    {
        if (!string.IsNullOrEmpty(value))
        {
            output.Column($"  {name}", 12, Ink.Faint).Line(value);
        }
    }

    private static string PlaceOf(PatchDiagnostic diagnostic)
    {
        var parts = new List<string>(3);
        if (diagnostic.SiteIndex is int index)
        {
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"site {index}"));
        }

        if (diagnostic.Address is VirtualAddress address)
        {
            parts.Add($"address {address}");
        }

        if (diagnostic.FileOffset is long offset)
        {
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"file offset 0x{offset:x}"));
        }

        return string.Join(", ", parts);
    }
}
