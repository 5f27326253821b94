using System.Text.Json;

namespace PvPatch.Tool.Tests.Support;

/// <summary>What a run of the tool ended with and wrote.</summary>
internal sealed record ToolResult(int ExitCode, string Out, string Error)
{
    /// <summary>Standard output as the one JSON document it must be.</summary>
    public JsonElement Json => Parse(Out);

    /// <summary>Standard error as the one JSON document it must be.</summary>
    public JsonElement ErrorJson => Parse(Error);

    /// <summary>The codes of the findings on standard error, given as text.</summary>
    public IReadOnlyList<string> Codes =>
        [.. Error.Split('\n').Where(static l => l.StartsWith("error PV", StringComparison.Ordinal))
            .Select(static l => l["error ".Length..l.IndexOf(':', StringComparison.Ordinal)])];

    public ToolResult Succeeds()
    {
        Assert.True(ExitCode == 0, $"exit code {ExitCode}\n{Error}");
        return this;
    }

    /// <summary>Fails with an exit code and a code, readably, and without a result.</summary>
    public ToolResult Fails(int exitCode, string code)
    {
        Assert.True(ExitCode == exitCode, $"exit code {ExitCode}, not {exitCode}\n{Out}\n{Error}");
        Assert.Contains(code, Codes);
        Assert.DoesNotContain("   at ", Out + Error, StringComparison.Ordinal); // a stack trace
        Assert.DoesNotContain("Exception", Out + Error, StringComparison.Ordinal);
        return this;
    }

    private static JsonElement Parse(string text)
    {
        using var document = JsonDocument.Parse(text);
        return document.RootElement.Clone();
    }
}
