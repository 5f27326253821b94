namespace PvPatch.Linux.Tests.Support;

/// <summary>
/// Skips a test where a program is missing; with <c>PVPATCH_REQUIRE_TOOLS=1</c> it fails instead, so that a run that is meant to
/// be complete cannot leave anything out in silence.
/// </summary>
internal static class Require
{
    public static string Tool(string name)
    {
        string? path = (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            .Select(directory => Path.Combine(directory, name))
            .FirstOrDefault(File.Exists);
        string missing = $"the program {name} is not installed";
        Assert.False(path is null && Environment.GetEnvironmentVariable("PVPATCH_REQUIRE_TOOLS") == "1", missing);
        Assert.SkipWhen(path is null, missing);
        return path!;
    }
}
