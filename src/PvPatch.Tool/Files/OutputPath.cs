using System.CommandLine;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux;

namespace PvPatch.Tool.Files;

/// <summary>Resolves output paths. An output is never an input of the same command, and always a regular file.</summary>
internal static class OutputPath
{
    public static Option<string> Option(string description) =>
        new("--output", "-o") { Description = description, HelpName = "FILE", Required = true };

    /// <summary>Resolves a path, links followed; refuses inputs of the command and anything but regular files.</summary>
    /// <param name="output">The path as given.</param>
    /// <param name="others">The other files of the command, by whatever name or link, hard ones included.</param>
    /// <exception cref="ToolFailure">It is one of them (PV7004), is a device or pipe (PV6107), or is empty (PV7001).</exception>
    public static string Resolve(string output, params IEnumerable<string?> others)
    {
        if (output.Length == 0)
        {
            throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, "the name of the output file is empty"));
        }

        string resolved = FollowLinks(output);
        if (!resolved.Contains('\0', StringComparison.Ordinal) && new FileInfo(resolved).LinkTarget is not null)
        {
            throw new ToolFailure(PatchDiagnostic.Error(KernelDiagnosticCodes.OutputUnwritable, "the output file cannot be written") with
            {
                Source = output,
                Found = "a link that leads to itself, or too many links",
                Expected = "a file",
            });
        }

        foreach (string? other in others)
        {
            if (!string.IsNullOrEmpty(other) && (FollowLinks(other) == resolved || FileIdentity.AreSame(other, resolved)))
            {
                throw new ToolFailure(
                    PatchDiagnostic.Error(ToolDiagnosticCodes.OutputIsInput, "the output would replace another file of this command") with
                    {
                        Source = output,
                        Found = $"the same file as {other}",
                        Expected = "a file of its own",
                        Help =
                        "Give another path. patch --force allows to replace the image itself; a vmlinuz is then replaced by a vmlinux, "
                        + "which does not boot.",
                    });
            }
        }

        if (FileIdentity.TryGet(resolved, out FileIdentity there) && there.Kind is FileKind.Device or FileKind.Pipe)
        {
            throw new ToolFailure(PatchDiagnostic.Error(KernelDiagnosticCodes.OutputUnwritable, "the output file cannot be written") with
            {
                Source = output,
                Found = "a device, pipe or socket",
                Expected = "a file",
                Help = "Files appear whole, by a rename, which would replace the device.",
            });
        }

        return resolved;
    }

    /// <summary>The path without links, as far as it exists.</summary>
    private static string FollowLinks(string path)
    {
        const int MostLinks = 40; // as the kernel
        try
        {
            string full = Path.GetFullPath(path);
            for (int i = 0; i < MostLinks && TryResolveOne(full, out string? target); i++)
            {
                full = target;
            }

            return full;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return path; // reading or writing it will say what is wrong
        }
    }

    /// <summary>Follows the first link in a path.</summary>
    private static bool TryResolveOne(string full, [NotNullWhen(true)] out string? target)
    {
        for (int end = full.IndexOf(Path.DirectorySeparatorChar, 1); ; end = full.IndexOf(Path.DirectorySeparatorChar, end + 1))
        {
            string part = end < 0 ? full : full[..end];
            if (new FileInfo(part).LinkTarget is string link)
            {
                string folder = Path.GetDirectoryName(part) ?? part;
                target = Path.GetFullPath(Path.Combine(folder, link) + full[part.Length..]);
                return true;
            }

            if (end < 0)
            {
                target = null;
                return false;
            }
        }
    }
}
