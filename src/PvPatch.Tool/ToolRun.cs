using System.Text.Json;

namespace PvPatch.Tool;

/// <summary>One run of one command: the outputs of its results and findings, and their form.</summary>
internal sealed class ToolRun
{
    private readonly List<string> _written = [];

    public ToolRun(ToolConsole console, bool json, bool noColour)
    {
        Console = console;
        IsJson = json;
        bool colour = !json && !noColour && console.WantsColour;
        Out = new TextOutput(console.Out, colour && console.OutIsTerminal);
        Error = new TextOutput(console.Error, colour && console.ErrorIsTerminal);
    }

    public ToolConsole Console { get; }

    /// <summary>Whether kernels are unpacked by programs of the system.</summary>
    public bool UnpacksWithPrograms { get; init; }

    /// <summary>Whether results and findings are JSON documents.</summary>
    public bool IsJson { get; }

    /// <summary>Text for standard output.</summary>
    public TextOutput Out { get; }

    /// <summary>Text for standard error.</summary>
    public TextOutput Error { get; }

    /// <summary>The files that were written, as the user named them.</summary>
    public IReadOnlyList<string> Written => _written;

    /// <summary>Records a written file. It is reported even if the command fails afterwards.</summary>
    public void NoteWritten(string name) => _written.Add(name);

    /// <summary>Writes the result as JSON.</summary>
    public void WriteJson(ToolDocument document) => JsonOutput.Write(Console.Out, document);

    /// <summary>Writes a result as JSON by a writer of the library.</summary>
    public void WriteJson(Action<Utf8JsonWriter> write) => JsonOutput.Write(Console.Out, write);

    /// <summary>Writes findings to standard error as text. In JSON mode findings are in the document itself.</summary>
    /// <param name="diagnostics">The findings.</param>
    /// <param name="hasNoPlace">
    /// Whether the JSON document has no member for them, so that they are text on standard error in any case.
    /// </param>
    public void Warn(IReadOnlyList<PatchDiagnostic> diagnostics, bool hasNoPlace = false)
    {
        if ((!IsJson || hasNoPlace) && diagnostics.Count > 0)
        {
            Out.Flush();
            DiagnosticText.Write(Error, diagnostics);
            Error.Flush();
        }
    }

    /// <summary>Writes the reason of a failure to standard error, as text or as one JSON document.</summary>
    public ExitCode Fail(IReadOnlyList<PatchDiagnostic> diagnostics, ExitCode exitCode)
    {
        if (!IsJson)
        {
            Warn(diagnostics);
            return exitCode;
        }

        JsonOutput.Write(Console.Error, new FailureDocument((int)exitCode, JsonPart.Of(diagnostics)));
        return exitCode;
    }
}
