using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// Finds a program in absolute directories of the search path only. Starting a program by its bare name would also look beside
/// the running executable and in the current directory, where someone who hands out kernels may have put an <c>xz</c> of their own.
/// </summary>
internal static class ProgramFinder
{
    public static bool TryFind(string program, string? searchPath, [NotNullWhen(true)] out string? path)
    {
        string fileName = OperatingSystem.IsWindows() ? program + ".exe" : program;
        string directories = searchPath ?? Environment.GetEnvironmentVariable("PATH") ?? "";
        foreach (string directory in directories.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries))
        {
            if (!Path.IsPathFullyQualified(directory))
            {
                continue;
            }

            path = Path.Combine(directory, fileName);
            if (IsExecutable(path))
            {
                return true;
            }
        }

        path = null;
        return false;
    }

    private static bool IsExecutable(string path)
    {
        const UnixFileMode AnyExecute = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
        return File.Exists(path) && (OperatingSystem.IsWindows() || (File.GetUnixFileMode(path) & AnyExecute) != 0);
    }
}
