using System.CommandLine;
using System.CommandLine.Parsing;

namespace PvPatch.Tool.CommandLine;

/// <summary>Errors of the parser as findings.</summary>
internal static class UsageErrors
{
    public static IReadOnlyList<PatchDiagnostic> Of(CommandSet tool, ParseResult parsed)
    {
        Command command = parsed.CommandResult.Command;
        string help = $"pvpatch {(command == tool.Root ? "" : $"{command.Name} ")}--help shows what there is.";
        string[] known = [.. command.Subcommands.Select(static c => c.Name), .. command.Options.Select(static o => o.Name)];
        var found = new List<PatchDiagnostic>();
        foreach (string token in parsed.UnmatchedTokens)
        {
            if (found.Count > 0 && !token.StartsWith('-'))
            {
                continue; // most likely the value of the option that is not known
            }

            string? near = CloseName.For(token, known);
            found.Add(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, $"there is no {What(command, token)} \"{token}\"") with
            {
                Help = near is null ? help : $"Did you mean \"{near}\"?",
            });
        }

        if (found.Count > 0)
        {
            return found; // a command that is not known makes the parser complain of much that is no fault
        }

        foreach (ParseError error in parsed.Errors)
        {
            found.Add(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, error.Message.TrimEnd('.')) with { Help = help });
        }

        return found;
    }

    private static string What(Command command, string token) =>
        token.StartsWith('-') ? "option" : command.Subcommands.Count > 0 ? "command" : "further argument";
}
