using System.CommandLine;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Elf;
using PvPatch.Linux.Kernel;
using PvPatch.Plans;

namespace PvPatch.Tool.Commands;

/// <summary>Files that are written: never one that is read as well, and whole or not at all.</summary>
internal static class OutputFiles
{
    public static Option<string> Option(string description) =>
        new("--output", "-o") { Description = description, HelpName = "FILE", Required = true };

    /// <summary>Refuses a path that is one of some others, by whatever name or link.</summary>
    /// <exception cref="ToolFailure">It is (PV7004), or it is empty (PV7001).</exception>
    public static void RequireOthers(string? output, ReadOnlySpan<string?> others)
    {
        if (output is null)
        {
            return;
        }

        if (output.Length == 0)
        {
            throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, "the name of the output file is empty"));
        }

        string resolved = Resolve(output);
        foreach (string? other in others)
        {
            if (!string.IsNullOrEmpty(other) && Resolve(other) == resolved)
            {
                throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.OutputIsInput, "the output would replace another file of this command") with
                {
                    Source = output,
                    Found = $"the same file as {other}",
                    Expected = "a file of its own",
                    Help = "Give another path. patch --force allows to replace the image itself; a vmlinuz is then replaced by a vmlinux, which does not boot.",
                });
            }
        }
    }

    /// <summary>Writes an image and, where a path is given, the plan it was patched with. The plan comes first and goes again if the image cannot be written.</summary>
    /// <exception cref="ToolFailure">One of them cannot be written (PV6107).</exception>
    public static void Write(ElfImage elf, string output, PatchPlan plan, string? planPath)
    {
        bool isNew = planPath is not null && !File.Exists(planPath);
        if (planPath is not null && !KernelImageWriter.TryWrite([.. PlanJson.ToUtf8(plan, indented: true), (byte)'\n'], planPath, out PatchDiagnostic? error))
        {
            throw new ToolFailure(error);
        }

        if (!KernelImageWriter.TryWrite(elf, output, out error))
        {
            if (isNew)
            {
                TryDelete(planPath!);
            }

            throw new ToolFailure(error);
        }
    }

    private static void TryDelete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // A whole and correct plan stays behind; that the image could not be written is what the user must hear.
        }
    }

    /// <summary>The path without links, as far as it exists.</summary>
    private static string Resolve(string path)
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
