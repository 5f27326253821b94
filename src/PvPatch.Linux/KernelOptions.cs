using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux;

/// <summary>
/// Options for opening a kernel or module: facts that the caller knows better than the file says, and limits for reading and unpacking it.
/// </summary>
public sealed record KernelOptions
{
    /// <summary>The era; found out from the image where there is none.</summary>
    public KernelEra? Era { get; init; }

    /// <summary>The order of the ops table; read from the image's type information, or proved by its tables, where there is none.</summary>
    public OpsLayout? Layout { get; init; }

    /// <summary>The symbols; the image's own symbol table or kallsyms where there are none.</summary>
    public KernelSymbols? Symbols { get; init; }

    /// <summary>The largest unpacked kernel accepted, in bytes. Default: 1 GiB.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive.</exception>
    public long MaxImageSize
    {
        get => Unpacking.MaxImageSize;
        init => Unpacking = Unpacking with { MaxImageSize = value };
    }

    /// <summary>
    /// How many times larger than its compressed form an unpacked kernel may be. Default: 128; kernels are 4 to 12 times larger.
    /// Up to 16 MiB of output are accepted whatever the ratio is.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive.</exception>
    public int MaxExpansion
    {
        get => Unpacking.MaxExpansion;
        init => Unpacking = Unpacking with { MaxExpansion = value };
    }

    /// <summary>The time that an unpacking program may run. Default: two minutes.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive, or longer than a day.</exception>
    public TimeSpan TimeLimit
    {
        get => Unpacking.TimeLimit;
        init => Unpacking = Unpacking with { TimeLimit = value };
    }

    /// <summary>
    /// The directories in which unpacking programs are looked for, separated as in <c>PATH</c>; <see langword="null"/> (the
    /// default) for <c>PATH</c> itself. Directories that are not absolute are passed over.
    /// </summary>
    public string? ProgramSearchPath
    {
        get => Unpacking.ProgramSearchPath;
        init => Unpacking = Unpacking with { ProgramSearchPath = value };
    }

    /// <summary>Told the number of bytes unpacked so far, about once per mebibyte and at the end.</summary>
    public IProgress<long>? Progress
    {
        get => Unpacking.Progress;
        init => Unpacking = Unpacking with { Progress = value };
    }

    /// <summary>What of these options the readers of files need.</summary>
    internal UnpackLimits Unpacking { get; private init; } = UnpackLimits.Default;
}
