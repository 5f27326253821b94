using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>Runs a test in a process of its own: what it is about, where it goes wrong, kills the process or hangs it.</summary>
internal static class Isolated
{
    private const string Variable = "PVPATCH_TESTS_ISOLATED";

    private const string Through = "isolated: through";

    /// <summary>Runs the test that calls this, once more in a child process, and there the body.</summary>
    /// <param name="type">The test's class.</param>
    /// <param name="body">What it does.</param>
    /// <param name="row">Which of a theory's rows this is.</param>
    /// <param name="seconds">How long it may take.</param>
    /// <param name="name">The test.</param>
    public static void Run(Type type, Action body, string row = "", int seconds = 300, [CallerMemberName] string name = "")
    {
        if (Environment.GetEnvironmentVariable(Variable) is string wanted)
        {
            if (wanted == $"row {row}")
            {
                body();
                Console.Error.WriteLine(Through);
            }

            return;
        }

        var start = new ProcessStartInfo(
            Environment.ProcessPath is string path && Path.GetFileNameWithoutExtension(path) == "dotnet" ? path : "dotnet")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, $"{type.Assembly.GetName().Name}.dll"));
        start.ArgumentList.Add("-method");
        start.ArgumentList.Add($"{type.FullName}.{name}");
        start.Environment[Variable] = $"row {row}";
        start.Environment["DOTNET_DbgEnableMiniDump"] = "0";
        using Process child = Process.Start(start)!;
        Task<string> output = child.StandardOutput.ReadToEndAsync();
        Task<string> error = child.StandardError.ReadToEndAsync();
        if (!child.WaitForExit(TimeSpan.FromSeconds(seconds)))
        {
            child.Kill();
            Assert.Fail($"it hangs: not at its end after {seconds} s");
        }

        child.WaitForExit();
        string text = output.Result + error.Result;
        Assert.True(child.ExitCode == 0, $"exit code {child.ExitCode}\n{text[Math.Max(0, text.Length - 6000)..]}");
        Assert.Contains(Through, text, StringComparison.Ordinal);
    }
}
