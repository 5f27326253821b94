using PvPatch.Linux;
using PvPatch.Linux.Files;
using PvPatch.Plans;

namespace PvPatch.Tool.Files;

/// <summary>
/// The output files of one command: all of them appear, whole, or none. Each is written to a temporary file beside its place and flushed to
/// the disk before any is renamed.
/// </summary>
/// <param name="run">The command's run: its disk and cancellation.</param>
/// <param name="source">
/// The image they are made from. New files get its permissions, as far as the umask allows; what is replaced keeps its own.
/// </param>
internal sealed class OutputFiles(ToolRun run, string source)
{
    private const int Step = 1 << 20; // bytes between two looks at the wish to stop

    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const UnixFileMode Everybody = (UnixFileMode)0b110_110_110;

    private readonly List<Output> _files = [];

    private OutputDisk Disk => run.Console.Disk;

    /// <summary>
    /// Adds an image: the bytes that its ELF headers account for. The KASLR relocations behind a kernel unpacked from a bzImage are left
    /// out.
    /// </summary>
    /// <param name="elf">The file, as it is in memory now.</param>
    /// <param name="path">The output path, resolved.</param>
    /// <param name="name">The path as the user gave it.</param>
    public OutputFiles Add(ElfImage elf, string path, string name) => Add(elf.File[..(int)elf.EndOfFileContent], path, name);

    /// <summary>Adds a plan, as <c>revert --plan</c> reads it.</summary>
    public OutputFiles Add(PatchPlan plan, string path, string name) =>
        Add((byte[])[.. PlanJson.ToUtf8(plan, indented: true), (byte)'\n'], path, name);

    /// <summary>Adds a file.</summary>
    public OutputFiles Add(ReadOnlyMemory<byte> bytes, string path, string name)
    {
        _files.Add(new Output(bytes, path, name));
        return this;
    }

    /// <summary>Writes all of them.</summary>
    /// <exception cref="ToolFailure">
    /// One cannot be written (PV6107). Those that were replaced have their old content again, or are named.
    /// </exception>
    /// <exception cref="OperationCanceledException">The user stopped it; nothing was written.</exception>
    public void Write()
    {
        Output current = _files[0];
        try
        {
            foreach (Output file in _files)
            {
                current = file;
                Stage(file);
            }

            run.Console.Cancellation.ThrowIfCancellationRequested();

            // From here on only names change. Where the second one cannot, the first one gives its name back.
            foreach (Output file in _files)
            {
                current = file;
                Publish(file, mayBeTakenBack: file != _files[^1]);
            }
        }
        catch (Exception exception) when (IsOfTheDisk(exception))
        {
            _files.ForEach(TakeBack);
            throw Failure(current, exception, [.. _files.Where(static f => f.IsPublished).Select(static f => f.Name)]);
        }
        finally
        {
            foreach (Output file in _files)
            {
                TemporaryFiles.Delete(file.Temporary);
                TemporaryFiles.Delete(file.Replaced);
            }
        }

        foreach (Output file in _files)
        {
            run.NoteWritten(file.Name);
        }

        FlushFolders();
    }

    private static bool IsOfTheDisk(Exception exception) =>
        exception is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException;

    private void Stage(Output file)
    {
        if (Directory.Exists(file.Path))
        {
            throw new IOException("it is a directory");
        }

        bool replaces = FileIdentity.TryGet(file.Path, out FileIdentity replaced);
        var options = new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.Write,
            Share = FileShare.None,
            BufferSize = 0
        };
        if (!OperatingSystem.IsWindows())
        {
            // Nobody else reads what replaces a file before it has that file's permissions.
            options.UnixCreateMode = replaces ? OwnerOnly : ModeOfNew();
        }

        string temporary = TemporaryFiles.NameBeside(file.Path);
        using var stream = new FileStream(temporary, options);
        file.Temporary = TemporaryFiles.Own(temporary);
        for (int at = 0; at < file.Bytes.Length; at += Step)
        {
            run.Console.Cancellation.ThrowIfCancellationRequested();
            Disk.Write(stream, file.Bytes.Span.Slice(at, Math.Min(Step, file.Bytes.Length - at)));
        }

        if (replaces && !OperatingSystem.IsWindows())
        {
            (bool owner, bool group) = Disk.TakeOwner(stream.SafeFileHandle, replaced);
            File.SetUnixFileMode(stream.SafeFileHandle, ModeFor(replaced.Mode, owner, group));
        }

        Disk.Flush(stream);
    }

    private UnixFileMode ModeOfNew() =>
        OwnerOnly | (
            FileIdentity.TryGet(source, out FileIdentity image) && image.Kind == FileKind.Regular ? image.Mode & Everybody : Everybody);

    /// <summary>The permissions, without those that would go to another owner or group.</summary>
    private static UnixFileMode ModeFor(UnixFileMode mode, bool sameOwner, bool sameGroup)
    {
        const UnixFileMode OfGroup = UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.GroupExecute;
        mode &= sameOwner ? mode : ~UnixFileMode.SetUser;
        return sameGroup ? mode : mode & ~(UnixFileMode.SetGroup | OfGroup);
    }

    private void Publish(Output file, bool mayBeTakenBack)
    {
        file.IsNew = !File.Exists(file.Path);
        if (mayBeTakenBack && !file.IsNew)
        {
            string second = TemporaryFiles.NameBeside(file.Path);
            file.Replaced = Disk.TryLink(file.Path, second) ? TemporaryFiles.Own(second) : null;
        }

        Disk.Rename(file.Temporary!, file.Path);
        file.IsPublished = true;
    }

    private void TakeBack(Output file)
    {
        try
        {
            if (file is { IsPublished: true, IsNew: true })
            {
                File.Delete(file.Path);
                file.IsPublished = false;
            }
            else if (file is { IsPublished: true, Replaced: string old })
            {
                Disk.Rename(old, file.Path);
                file.IsPublished = false;
            }
        }
        catch (Exception exception) when (IsOfTheDisk(exception))
        {
            // It stays, and the failure says so.
        }
    }

    private void FlushFolders()
    {
        try
        {
            foreach (string? folder in _files.Select(static f => Path.GetDirectoryName(f.Path)).Distinct())
            {
                Disk.FlushFolder(folder ?? ".");
            }
        }
        catch (IOException exception)
        {
            throw Failure(_files[0], exception, [.. _files.Select(static f => f.Name)]);
        }
    }

    private static ToolFailure Failure(Output file, Exception exception, IReadOnlyList<string> written) =>
        new(PatchDiagnostic.Error(KernelDiagnosticCodes.OutputUnwritable, "the output file cannot be written") with
        {
            Source = file.Name,
            Found = exception.Message,
            Help = written.Count == 0
                ? "Give a path in a directory that exists, may be written to and has room. No file was changed."
                : $"The new content of {string.Join(" and ", written)} stands there already and could not be taken back.",
        });

    private sealed class Output(ReadOnlyMemory<byte> bytes, string path, string name)
    {
        public ReadOnlyMemory<byte> Bytes => bytes;

        public string Path => path;

        public string Name => name;

        /// <summary>The temporary file with its bytes.</summary>
        public string? Temporary { get; set; }

        /// <summary>A hard link to the file it replaced.</summary>
        public string? Replaced { get; set; }

        public bool IsNew { get; set; }

        public bool IsPublished { get; set; }
    }
}
