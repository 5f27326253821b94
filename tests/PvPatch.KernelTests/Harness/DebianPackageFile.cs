using System.Formats.Tar;

namespace PvPatch.KernelTests.Harness;

/// <summary>Files out of a .deb, without unpacking the rest of it.</summary>
internal static class DebianPackageFile
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(5);

    /// <summary>Writes the first regular file whose path fits to <paramref name="target"/>.</summary>
    /// <returns>The path inside the package, or null if no file fits.</returns>
    public static string? TryExtract(string package, Func<string, bool> fits, string target)
    {
        ToolResult result = ExternalTool.Run(
            "dpkg-deb", ["--fsys-tarfile", package], s_timeout, stream => Extract(stream, fits, target));
        if (!result.Succeeded)
        {
            throw new InvalidDataException($"dpkg-deb cannot read {Path.GetFileName(package)}: {result.Error}");
        }

        return result.Output.Length == 0 ? null : result.Output;
    }

    /// <summary>Writes every regular file that is given a target to it.</summary>
    /// <returns>How many there were.</returns>
    public static int ExtractAll(string package, Func<string, string?> target)
    {
        int count = 0;
        ToolResult result = ExternalTool.Run("dpkg-deb", ["--fsys-tarfile", package], s_timeout, stream =>
        {
            using TarReader reader = new(stream);
            while (reader.GetNextEntry() is { } entry)
            {
                bool regular = entry.EntryType is TarEntryType.RegularFile or TarEntryType.V7RegularFile;
                if (regular && target(entry.Name) is { } path)
                {
                    entry.ExtractToFile(path, overwrite: true);
                    count++;
                }
            }

            stream.CopyTo(Stream.Null);
            return string.Empty;
        });
        return result.Succeeded
            ? count : throw new InvalidDataException($"dpkg-deb cannot read {Path.GetFileName(package)}: {result.Error}");
    }

    private static string Extract(Stream stream, Func<string, bool> fits, string target)
    {
        string found = string.Empty;
        using TarReader reader = new(stream);

        // Read to the end even after the find: dpkg-deb fails if its pipe closes early.
        while (reader.GetNextEntry() is { } entry)
        {
            bool regular = entry.EntryType is TarEntryType.RegularFile or TarEntryType.V7RegularFile;
            if (found.Length == 0 && regular && fits(entry.Name))
            {
                entry.ExtractToFile(target, overwrite: true);
                found = entry.Name;
            }
        }

        stream.CopyTo(Stream.Null);
        return found;
    }
}
