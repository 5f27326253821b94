using System.CommandLine;
using System.CommandLine.Invocation;
using PvPatch.Linux;

namespace PvPatch.Tool;

/// <summary>Entry point of the tool: runs a command line and returns the exit code. Throws nothing.</summary>
internal static class ToolApplication
{
    /// <summary>Runs one command line.</summary>
    public static ExitCode Run(IReadOnlyList<string> arguments, ToolConsole console)
    {
        var tool = new CommandSet();

        // No response files: a file name may well begin with "@".
        ParseResult parsed = tool.Root.Parse(arguments, new ParserConfiguration { ResponseFileTokenReplacer = null });
        ToolCommand? command = tool.Find(parsed.CommandResult.Command);
        bool json = command is null ? arguments.Contains("--json") : parsed.GetValue(command.Json);
        var run = new ToolRun(console, json, parsed.GetValue(tool.NoColour)) { UnpacksWithPrograms = parsed.GetValue(tool.UnpackWithPrograms) };
        try
        {
            ExitCode exitCode = Run(tool, parsed, command, run, arguments.Count == 0);
            run.Out.Flush();
            return exitCode;
        }
        catch (Exception exception)
        {
            return Fail(run, exception);
        }
    }

    private static ExitCode Run(CommandSet tool, ParseResult parsed, ToolCommand? command, ToolRun run, bool empty)
    {
        if (empty)
        {
            parsed = tool.Root.Parse("--help");
        }

        if (parsed.Action is ParseErrorAction)
        {
            throw new ToolFailure(UsageErrors.Of(tool, parsed));
        }

        if (command is not null && parsed.Action is null)
        {
            return command.Execute(parsed, run);
        }

        // --help and --version
        using var text = new StringWriter { NewLine = "\n" };
        int result = parsed.Invoke(new InvocationConfiguration { Output = text, Error = text, EnableDefaultExceptionHandler = false });
        run.Out.Block(text.ToString());
        return empty ? ExitCode.Usage : (ExitCode)result;
    }

    /// <summary>Reports an exception as a finding, without a stack trace.</summary>
    private static ExitCode Fail(ToolRun run, Exception exception)
    {
        ToolFailure failure = exception switch
        {
            ToolFailure known => known,
            PatchException known => new ToolFailure(known.Diagnostic),
            OperationCanceledException =>
                new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Cancelled, "stopped before it was done; nothing was written")),
            OutOfMemoryException =>
                new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.OutOfMemory, "there is not enough memory for this file")),
            IOException or UnauthorizedAccessException => new ToolFailure(
                PatchDiagnostic.Error(KernelDiagnosticCodes.OutputUnwritable, "standard output cannot be written") with
                {
                    Found = exception.Message,
                    Help = run.Written.Count == 0
                        ? null : $"Written was {string.Join(" and ", run.Written)}; only what there is to say of it is lost.",
                }),
            _ => new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Internal, "this is a mistake in pvpatch, not in your file") with
            {
                Found = $"{exception.GetType().Name}: {exception.Message}",
                Help = "Please report it with the command line and, if you can, the file.",
            }),
        };
        try
        {
            return run.Fail(failure.Diagnostics, failure.ExitCode);
        }
        catch (IOException)
        {
            return failure.ExitCode; // standard error cannot be written either: the exit code must do
        }
    }
}
