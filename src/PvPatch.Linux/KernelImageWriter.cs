using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux;

/// <summary>
/// Writes an ELF file whole or not at all: first to a file of its own beside the wanted one, which it then replaces in one step.
/// A link is followed. Devices, which cannot be replaced, are written to as they are.
/// </summary>
internal static class KernelImageWriter
{
    /// <summary>Writes what the ELF headers account for. The KASLR relocations behind a kernel unpacked from a bzImage are left out.</summary>
    /// <param name="elf">The file, as it is in memory now.</param>
    /// <param name="path">Where to. An existing file is replaced.</param>
    /// <param name="error">PV6107: the path cannot be written. Nothing is left behind then.</param>
    /// <returns>Whether the file was written.</returns>
    public static bool TryWrite(ElfImage elf, string path, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(elf);
        ArgumentException.ThrowIfNullOrEmpty(path);
        return TryWrite(elf.File.Span[..(int)elf.EndOfFileContent], path, out error);
    }

    /// <summary>Writes bytes to a file, whole or not at all.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="path">Where to. An existing file is replaced.</param>
    /// <param name="error">PV6107: the path cannot be written. Nothing is left behind then.</param>
    /// <returns>Whether the file was written.</returns>
    public static bool TryWrite(ReadOnlySpan<byte> bytes, string path, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string? beside = null;
        try
        {
            string full = Path.GetFullPath(path);
            string target = IsDevice(full) || new FileInfo(full).LinkTarget is null ? full : File.ResolveLinkTarget(full, returnFinalTarget: true)!.FullName;
            if (Directory.Exists(target))
            {
                throw new IOException("it is a directory");
            }

            if (IsDevice(target))
            {
                using var device = new FileStream(target, FileMode.Open, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0);
                device.Write(bytes);
                error = null;
                return true;
            }

            // A short name of its own: the wanted one may be as long as names can be.
            string temporary = Path.Join(Path.GetDirectoryName(target), $".pvpatch-{Path.GetRandomFileName()}");
            using (var file = new FileStream(temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 0))
            {
                beside = temporary; // ours from here on
                file.Write(bytes);
            }

            File.Move(temporary, target, overwrite: true);
            error = null;
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            TryDelete(beside);
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.OutputUnwritable, "the output file cannot be written") with
            {
                Source = path,
                Found = e.Message,
                Help = "Give a path in a directory that exists and may be written to. Nothing was left behind.",
            };
            return false;
        }
    }

    /// <summary>
    /// Whether a path names a device, which must not be replaced: the superuser could, and the machine would be without its
    /// <c>/dev/null</c>. Known by its place, as files there are devices or links to them; only <c>/dev/shm</c> holds common ones.
    /// </summary>
    internal static bool IsDevice(string fullPath) =>
        !OperatingSystem.IsWindows()
        && fullPath.StartsWith("/dev/", StringComparison.Ordinal)
        && !fullPath.StartsWith("/dev/shm/", StringComparison.Ordinal);

    private static void TryDelete(string? path)
    {
        try
        {
            if (path is not null)
            {
                File.Delete(path);
            }
        }
        catch (IOException)
        {
            // The first failure is the one to report.
        }
        catch (UnauthorizedAccessException)
        {
            // As above.
        }
    }
}
