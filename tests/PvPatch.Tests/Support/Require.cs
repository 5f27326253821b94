using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Support;

/// <summary>Tools of these tests; see <see cref="Requirement"/>.</summary>
internal static class Require
{
    /// <summary>Goes on if the tool is there, else skips the test or fails it.</summary>
    public static void Tool(bool isPresent, string tool, string package) =>
        Requirement.That(isPresent, $"{tool} not found (package {package})");

    /// <summary>Whether a program of that name is in a directory of PATH.</summary>
    public static bool IsOnPath(string program) => Requirement.FindProgram(program) is not null;
}
