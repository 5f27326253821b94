namespace PvPatch.Tests.Shared;

/// <summary>
/// What a test needs and a machine may lack. Without it the test is skipped and says why; with PVPATCH_REQUIRE_TOOLS=1 it fails, so
/// that a run that is meant to be complete cannot lose tests unseen.
/// </summary>
internal static class Requirement
{
    private const string Variable = "PVPATCH_REQUIRE_TOOLS";

    /// <summary>Goes on where the condition holds, else ends the test.</summary>
    /// <param name="holds">Whether the machine has it.</param>
    /// <param name="missing">What is missing and what would bring it.</param>
    public static void That(bool holds, string missing)
    {
        if (!holds)
        {
            Missing(missing);
        }
    }

    /// <summary>Ends the test: skipped, or failed where everything is demanded.</summary>
    /// <param name="reason">What is missing and what would bring it.</param>
    public static void Missing(string reason)
    {
        if (Environment.GetEnvironmentVariable(Variable) == "1")
        {
            Assert.Fail($"{reason}; {Variable}=1 asks for it");
        }

        // The runner prints reasons of skips only where it is told to print everything.
        TestContext.Current.SendDiagnosticMessage("{0} skipped: {1}", TestContext.Current.Test?.TestDisplayName ?? "test", reason);
        Assert.Skip(reason);
    }

    /// <summary>Threads that have to overlap need two processors.</summary>
    public static void TwoProcessors() => That(Environment.ProcessorCount > 1, "two processors are needed, as threads must overlap");

    /// <summary>The path of a program in the directories of PATH, or null.</summary>
    public static string? FindProgram(string name) =>
        (Environment.GetEnvironmentVariable("PATH") ?? string.Empty)
            .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            .Select(directory => Path.Combine(directory, name))
            .FirstOrDefault(File.Exists);
}
