namespace PvPatch.Tests.Support;

/// <summary>
/// Tools a test needs but a machine may lack. Without them a test is skipped; with PVPATCH_REQUIRE_TOOLS=1 it fails, so that
/// a build that is meant to have them cannot lose tests unseen.
/// </summary>
internal static class Require
{
    private const string Variable = "PVPATCH_REQUIRE_TOOLS";

    public static bool ToolsAreRequired => Environment.GetEnvironmentVariable(Variable) == "1";

    /// <summary>Goes on if the tool is there, else skips the test or fails it.</summary>
    public static void Tool(bool isPresent, string tool, string package)
    {
        if (isPresent)
        {
            return;
        }

        string reason = $"{tool} not found (package {package})";
        if (ToolsAreRequired)
        {
            Assert.Fail($"{reason}, and {Variable}=1 asks for it");
        }

        Assert.Skip(reason);
    }

    /// <summary>Whether a program of that name is in a directory of PATH.</summary>
    public static bool IsOnPath(string program)
    {
        string path = Environment.GetEnvironmentVariable("PATH") ?? string.Empty;
        return path.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            .Any(directory => File.Exists(Path.Combine(directory, program)));
    }
}
