using System.CommandLine;
using PvPatch.Images;
using PvPatch.Linux;
using PvPatch.Linux.Files;
using PvPatch.Linux.Text;

namespace PvPatch.Tool.Kernels;

/// <summary>A kernel file that was read and unpacked and whose ELF headers were checked.</summary>
internal sealed class KernelInput
{
    private KernelInput(string path, LoadedKernelFile file, ElfImage elf)
    {
        Path = path;
        File = file;
        Elf = elf;
    }

    /// <summary>The path as the user gave it.</summary>
    public string Path { get; }

    /// <summary>The file, unpacked.</summary>
    public LoadedKernelFile File { get; }

    /// <summary>The ELF file in it.</summary>
    public ElfImage Elf { get; }

    /// <summary>The first argument of every command on a kernel.</summary>
    public static Argument<string> Argument(string description = "A kernel: vmlinux, vmlinuz (bzImage) or a compressed vmlinux") =>
        new("IMAGE") { Description = description };

    /// <summary>Reads a file and tells its progress.</summary>
    /// <exception cref="ToolFailure">It cannot be read, or is no kernel.</exception>
    public static KernelInput Read(string path, ToolRun run)
    {
        if (path.Length == 0)
        {
            throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, "the name of a file is empty"));
        }

        run.Console.Cancellation.ThrowIfCancellationRequested();
        bool loaded;
        LoadedKernelFile? file;
        PatchDiagnostic? error;
        using (UnpackProgress? progress = UnpackProgress.Start(path, run))
        {
            loaded = KernelFile.TryLoad(path, new UnpackLimits { Progress = progress, UsePrograms = run.UnpacksWithPrograms }, out file, out error, run.Console.Cancellation);
        }

        if (!loaded || !ElfImage.TryRead(file!.Image, out ElfImage? elf, out error))
        {
            // Ctrl-C goes to the unpacking program too, which may be quicker to end than we are to hear of it.
            run.Console.Cancellation.ThrowIfCancellationRequested();
            throw new ToolFailure(error! with { Source = path });
        }

        return new KernelInput(path, file, elf);
    }

    /// <summary>Finds sites, layout and ops table.</summary>
    /// <exception cref="ToolFailure">The kernel has none, or of a kind that is not supported.</exception>
    public KernelImage Open(ParseResult arguments, ImageOptions options) =>
        KernelImage.TryOpen(Elf, options.Read(arguments, Elf), out KernelImage? image, out PatchDiagnostic? error)
            ? image : throw new ToolFailure(error with { Source = Path });

    /// <summary>The parts of the file that a plan writes to, whether or not sites can be found in it.</summary>
    /// <exception cref="ToolFailure">It is not linked, so its code has no addresses.</exception>
    public CodeImage Code() => Elf.Type != ElfFileType.Relocatable
        ? BootablePlan.ImageOf(Elf)
        : throw new ToolFailure(
            PatchDiagnostic.Error(KernelDiagnosticCodes.ElfNotSupported, "the file is not linked: its code has no addresses yet") with
            {
                Source = Path,
                Found = "a relocatable file, as a module is",
                Expected = "a vmlinux",
            });
}
