using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.Support;

/// <summary>Programs of these tests; see <see cref="Requirement"/>.</summary>
internal static class Require
{
    /// <summary>Goes on if the program is there, else skips the test or fails it.</summary>
    /// <returns>The program's path.</returns>
    public static string Tool(string name)
    {
        string? path = Requirement.FindProgram(name);
        Requirement.That(path is not null, $"the program {name} is not installed");
        return path!;
    }
}
