using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;

namespace PvPatch.Tool.CommandLine;

/// <summary>Help: the parser's description of a command, followed by examples and exit codes.</summary>
internal static class HelpText
{
    private const int Width = 110;

    private const string ExitCodes = """
        Exit codes:
          0    done
          1    the command line is wrong (unknown command, option, backend, slot or address)
          2    a file cannot be read, or is not what it should be, or is not supported
          3    refused because it would not be safe (unknown bytes at a site, output is the input, plan of another image)
          4    the output cannot be written; nothing half-written is left behind
          5    a program that unpacks kernels (xz, zstd, …) is not installed
          6    compared, and different (verify: tampered, mixed or another backend; diff: the plans differ;
               audit: a register destroyed that is read, a convention broken)
          7    verify: the dump was taken before the kernel patched itself
          8    verify: as it should be as far as the dump goes, but sites that a running kernel keeps are not in it
          130  stopped by Ctrl-C or a signal
        """;

    public static void Write(CommandSet tool, ParseResult parsed, TextWriter output)
    {
        new HelpAction { MaxWidth = Width }.Invoke(parsed);
        IReadOnlyList<string> examples = tool.Find(parsed.CommandResult.Command)?.Examples
            ?? [.. tool.Commands.Select(static c => c.Examples[0])];
        output.WriteLine("Examples:");
        foreach (string example in examples)
        {
            output.WriteLine($"  pvpatch {example}");
        }

        output.WriteLine();
        output.WriteLine(ExitCodes);
    }
}

/// <summary>The action of <c>--help</c>.</summary>
internal sealed class HelpTextAction(CommandSet tool) : SynchronousCommandLineAction
{
    public override int Invoke(ParseResult parseResult)
    {
        HelpText.Write(tool, parseResult, parseResult.InvocationConfiguration.Output);
        return 0;
    }

    /// <inheritdoc/>
    public override bool ClearsParseErrors => true;
}
