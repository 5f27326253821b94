using System.CommandLine;

namespace PvPatch.Tool.CommandLine;

/// <summary>One command of the tool: its syntax and its work.</summary>
internal abstract class ToolCommand
{
    protected ToolCommand(string name, string description, params IReadOnlyList<string> examples)
    {
        Definition = new Command(name, description);
        Examples = examples;
        Definition.Options.Add(Json);
    }

    /// <summary>The command in the parser.</summary>
    public Command Definition { get; }

    /// <summary>Command lines for the help, without the program's name.</summary>
    public IReadOnlyList<string> Examples { get; }

    public Option<bool> Json { get; } = new("--json") { Description = "Write one JSON document (docs/json.md) instead of text" };

    /// <summary>Runs the command.</summary>
    /// <exception cref="ToolFailure">It failed.</exception>
    public abstract ExitCode Execute(ParseResult arguments, ToolRun run);
}
