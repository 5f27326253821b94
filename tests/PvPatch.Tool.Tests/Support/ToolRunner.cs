using PvPatch.Tool.Files;

namespace PvPatch.Tool.Tests.Support;

/// <summary>Runs the tool in this process.</summary>
internal static class ToolRunner
{
    public static ToolResult Run(params string[] arguments) => Run(new Settings(), arguments);

    public static ToolResult Run(Settings settings, params string[] arguments)
    {
        using var output = new MemoryStream();
        using var error = new MemoryStream();
        var console = new ToolConsole
        {
            Out = settings.Out ?? output,
            Error = error,
            OutIsTerminal = settings.Terminal,
            Environment = name => settings.Environment.GetValueOrDefault(name),
            Cancellation = settings.Cancellation,
            Disk = settings.Disk,
        };
        int exitCode = (int)ToolApplication.Run(arguments, console);
        return new ToolResult(
            exitCode, System.Text.Encoding.UTF8.GetString(output.ToArray()), System.Text.Encoding.UTF8.GetString(error.ToArray()));
    }

    internal sealed record Settings
    {
        public Stream? Out { get; init; }

        public bool Terminal { get; init; }

        public Dictionary<string, string> Environment { get; init; } = [];

        public CancellationToken Cancellation { get; init; }

        public OutputDisk Disk { get; init; } = new();
    }
}
