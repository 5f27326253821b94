namespace PvPatch.Tool;

/// <summary>
/// Everything the tool touches of its process: two streams, what they lead to, the disk it writes files to, and the wish to stop.
/// </summary>
internal sealed class ToolConsole
{
    /// <summary>Where results go.</summary>
    public required Stream Out { get; init; }

    /// <summary>Where findings and progress go.</summary>
    public required Stream Error { get; init; }

    /// <summary>Whether <see cref="Out"/> is a terminal.</summary>
    public bool OutIsTerminal { get; init; }

    /// <summary>Whether <see cref="Error"/> is a terminal.</summary>
    public bool ErrorIsTerminal { get; init; }

    /// <summary>Looks up an environment variable.</summary>
    public Func<string, string?> Environment { get; init; } = static _ => null;

    /// <summary>The disk that files are written to.</summary>
    public OutputDisk Disk { get; init; } = new();

    /// <summary>The user's wish to stop.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>Whether colours are understood and not unwanted (https://no-color.org).</summary>
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
