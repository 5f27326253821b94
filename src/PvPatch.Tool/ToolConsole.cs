namespace PvPatch.Tool;

/// <summary>The tool's view of its process: standard output and error, whether they are terminals, the disk, and cancellation.</summary>
internal sealed class ToolConsole
{
    /// <summary>The stream of results.</summary>
    public required Stream Out { get; init; }

    /// <summary>The stream of findings and progress.</summary>
    public required Stream Error { get; init; }

    /// <summary>Whether <see cref="Out"/> is a terminal.</summary>
    public bool OutIsTerminal { get; init; }

    /// <summary>Whether <see cref="Error"/> is a terminal.</summary>
    public bool ErrorIsTerminal { get; init; }

    /// <summary>Looks up an environment variable.</summary>
    public Func<string, string?> Environment { get; init; } = static _ => null;

    /// <summary>The disk that files are written to.</summary>
    public OutputDisk Disk { get; init; } = new();

    /// <summary>Cancelled when the user stops the tool.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>Whether colours are supported and not turned off (https://no-color.org).</summary>
    public bool WantsColour => string.IsNullOrEmpty(Environment("NO_COLOR")) && Environment("TERM") != "dumb";

    /// <summary>The streams of this process.</summary>
    public static ToolConsole OfProcess(CancellationToken cancellation) => new()
    {
        Out = Console.OpenStandardOutput(),
        Error = Console.OpenStandardError(),
        OutIsTerminal = !Console.IsOutputRedirected,
        ErrorIsTerminal = !Console.IsErrorRedirected,
        Environment = System.Environment.GetEnvironmentVariable,
        Cancellation = cancellation,
    };
}
