using System.Collections.Concurrent;

namespace PvPatch.Tool.Files;

/// <summary>The temporary files of this process, kept so that they are deleted even if the process ends at once.</summary>
internal static class TemporaryFiles
{
    private static readonly ConcurrentDictionary<string, bool> s_paths = new();

    /// <summary>A name beside a file, not in use: short, for the file's own name may be as long as names can be.</summary>
    public static string NameBeside(string path) => Path.Join(Path.GetDirectoryName(path), $".pvpatch-{Path.GetRandomFileName()}");

    /// <summary>Registers a new temporary file.</summary>
    /// <returns>Its path.</returns>
    public static string Own(string path)
    {
        s_paths[path] = true;
        return path;
    }

    /// <summary>Deletes a temporary file, where there still is one.</summary>
    public static void Delete(string? path)
    {
        try
        {
            if (path is not null)
            {
                File.Delete(path);
                s_paths.TryRemove(path, out _);
            }
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // What made it of no use is the failure to report.
        }
    }

    /// <summary>Deletes all of them.</summary>
    public static void DeleteAll()
    {
        foreach (string path in s_paths.Keys)
        {
            Delete(path);
        }
    }
}
