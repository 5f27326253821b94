using System.Text.Json;
using PvPatch.Tests.Shared;

namespace PvPatch.KernelTests.Harness;

/// <summary>The tool as a process of its own.</summary>
internal static class PvPatchTool
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(3);

    /// <summary>The files of the tool, all in one directory.</summary>
    public static IEnumerable<string> Files =>
        ((string[])["PvPatch*.dll", "PvPatch.Tool.*.json", "Iced.dll", "Snappier.dll", "Spectre.Console.dll",
            "System.CommandLine.dll", "ZstdSharp.dll", "Microsoft.Extensions.*.dll"])
            .SelectMany(static pattern => Directory.GetFiles(AppContext.BaseDirectory, pattern))
            .Where(static file => !Path.GetFileName(file).StartsWith("PvPatch.KernelTests", StringComparison.Ordinal));

    /// <summary>Runs <c>pvpatch</c>.</summary>
    public static ToolResult Run(params IEnumerable<string> arguments)
    {
        return ExternalTool.Run(DotnetHost.Path, [Path.Combine(AppContext.BaseDirectory, "PvPatch.Tool.dll"), .. arguments], s_timeout);
    }

    /// <summary>Runs <c>pvpatch verify --json</c>.</summary>
    /// <param name="image">The kernel.</param>
    /// <param name="memory">The dump.</param>
    /// <param name="exitCode">What it has to end with.</param>
    /// <param name="arguments">More arguments.</param>
    /// <returns>Its one JSON document, of standard output or, where there is no result, of standard error.</returns>
    public static JsonElement Verify(string image, string memory, int exitCode = 0, params IEnumerable<string> arguments)
    {
        ToolResult result = Run(["verify", image, "--memory", memory, "--json", .. arguments]);
        Assert.True(result.ExitCode == exitCode, $"exit code {result.ExitCode}, not {exitCode}\n{result.Tail()}");
        return Parse(result.Output.Length > 0 ? result.Output : result.Error);
    }

    public static JsonElement Parse(string text)
    {
        using var document = JsonDocument.Parse(text);
        return document.RootElement.Clone();
    }
}
