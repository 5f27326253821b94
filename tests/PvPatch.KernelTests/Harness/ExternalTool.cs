using System.Diagnostics;

namespace PvPatch.KernelTests.Harness;

/// <summary>Runs a command to its end, with a time limit and its output kept.</summary>
internal static class ExternalTool
{
    /// <summary>Whether the command is an existing path or a file on the search path.</summary>
    public static bool Exists(string command)
    {
        if (command.Contains('/', StringComparison.Ordinal))
        {
            return File.Exists(command);
        }

        string path = Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin";
        return path.Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Any(directory => File.Exists(Path.Combine(directory, command)));
    }

    /// <summary>Runs the command; its standard output and standard error come back as text.</summary>
    public static ToolResult Run(
        string command,
        IEnumerable<string> arguments,
        TimeSpan timeout,
        string? workingDirectory = null)
    {
        return Run(command, arguments, timeout, static stream => new StreamReader(stream).ReadToEnd(), workingDirectory);
    }

    /// <summary>Runs the command and lets a reader consume its standard output while it is written.</summary>
    public static ToolResult Run(
        string command,
        IEnumerable<string> arguments,
        TimeSpan timeout,
        Func<Stream, string> readOutput,
        string? workingDirectory = null)
    {
        ProcessStartInfo start = new(command, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = workingDirectory ?? string.Empty,
        };
        // Messages and "Depends:" lines are parsed, so they must not be translated.
        start.Environment["LC_ALL"] = "C";

        using Process process = Process.Start(start)
            ?? throw new InvalidOperationException($"'{command}' did not start.");
        process.StandardInput.Close();
        Task<string> error = Task.Run(process.StandardError.ReadToEnd);
        Task<string> output = Task.Run(() => readOutput(process.StandardOutput.BaseStream));

        if (!Task.WhenAll(output, error).ContinueWith(static _ => { }, TaskScheduler.Default).Wait(timeout)
            || !process.WaitForExit(TimeSpan.FromSeconds(10)))
        {
            process.Kill();
            throw new TimeoutException($"'{command}' had not finished after {timeout.TotalSeconds:0} s.");
        }

        return new ToolResult(process.ExitCode, output.GetAwaiter().GetResult(), error.GetAwaiter().GetResult());
    }
}
