using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux;

/// <summary>
/// Options for opening a kernel or module: known facts, which replace those read from the file, and limits for reading and unpacking.
/// </summary>
public sealed record KernelOptions
{
    /// <summary>The era; <see langword="null"/> (the default) to detect it from the image.</summary>
    public KernelEra? Era { get; init; }

    /// <summary>
    /// The layout of the ops table; <see langword="null"/> (the default) to read it from the image's type information or to find a known
    /// one that its tables prove.
    /// </summary>
    public OpsLayout? Layout { get; init; }

    /// <summary>The symbols; <see langword="null"/> (the default) for the image's own symbol table or kallsyms.</summary>
    public KernelSymbols? Symbols { get; init; }

    /// <summary>The largest unpacked kernel accepted, in bytes. Default: 1 GiB.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive.</exception>
    public long MaxImageSize
    {
        get => Unpacking.MaxImageSize;
        init => Unpacking = Unpacking with { MaxImageSize = value };
    }

    /// <summary>
    /// The largest accepted ratio of unpacked to compressed size. Default: 128; kernels are 4 to 12 times larger. Up to 16 MiB of output
    /// are accepted whatever the ratio is.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive.</exception>
    public int MaxExpansion
    {
        get => Unpacking.MaxExpansion;
        init => Unpacking = Unpacking with { MaxExpansion = value };
    }

    /// <summary>
    /// Whether programs of the system unpack what is not gzip (xz, zstd, lz4, bzip2). Default: no; lzo is unpacked by its program (lzop) in
    /// any case, xz by its own where that is installed.
    /// </summary>
    public bool UsePrograms
    {
        get => Unpacking.UsePrograms;
        init => Unpacking = Unpacking with { UsePrograms = value };
    }

    /// <summary>The time that unpacking may take. Default: two minutes.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive, or longer than a day.</exception>
    public TimeSpan TimeLimit
    {
        get => Unpacking.TimeLimit;
        init => Unpacking = Unpacking with { TimeLimit = value };
    }

    /// <summary>
    /// The directories to search for unpacking programs, separated as in <c>PATH</c>; <see langword="null"/> (the default) for <c>PATH</c>
    /// itself. Directories that are not absolute are passed over.
    /// </summary>
    public string? ProgramSearchPath
    {
        get => Unpacking.ProgramSearchPath;
        init => Unpacking = Unpacking with { ProgramSearchPath = value };
    }

    /// <summary>Receiver of the number of bytes unpacked so far, about once per mebibyte and at the end.</summary>
    public IProgress<long>? Progress
    {
        get => Unpacking.Progress;
        init => Unpacking = Unpacking with { Progress = value };
    }

    /// <summary>The limits among these options, for the readers of files.</summary>
    internal UnpackLimits Unpacking { get; private init; } = UnpackLimits.Default;
}
