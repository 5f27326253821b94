namespace PvPatch.Linux.Files;

/// <summary>Limits for reading and unpacking a kernel file. <see cref="KernelOptions"/> has them for callers of the library.</summary>
internal sealed record UnpackLimits
{
    /// <summary>The limits used where none are given.</summary>
    public static UnpackLimits Default { get; } = new();

    /// <summary>The largest unpacked kernel accepted, in bytes. Default: 1 GiB.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive.</exception>
    public long MaxImageSize
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegativeOrZero(value);
            field = value;
        }
    } = 1L << 30;

    /// <summary>
    /// The largest accepted ratio of unpacked to compressed size. Default: 128; kernels are 4 to 12 times larger. Up to 16 MiB of output
    /// are accepted whatever the ratio is.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive.</exception>
    public int MaxExpansion
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegativeOrZero(value);
            field = value;
        }
    } = 128;

    /// <summary>
    /// Whether programs of the system unpack what is not gzip (xz, zstd, lz4, bzip2). Default: no; lzo is unpacked by its program in any
    /// case, xz where it is installed.
    /// </summary>
    public bool UsePrograms { get; init; }

    /// <summary>The time that unpacking may take. Default: two minutes.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not positive, or longer than a day.</exception>
    public TimeSpan TimeLimit
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(value, TimeSpan.Zero);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, TimeSpan.FromDays(1));
            field = value;
        }
    } = TimeSpan.FromMinutes(2);

    /// <summary>
    /// The directories to search for unpacking programs, separated as in <c>PATH</c>; <see langword="null"/> (the default) for <c>PATH</c>
    /// itself. Directories that are not absolute are passed over.
    /// </summary>
    public string? ProgramSearchPath { get; init; }

    /// <summary>Receiver of the number of bytes unpacked so far, about once per mebibyte and at the end.</summary>
    public IProgress<long>? Progress { get; init; }

    /// <summary>The most bytes that compressed data of a length may unpack to.</summary>
    public long OutputLimit(long compressedLength)
    {
        long byRatio = Math.Max(16L << 20, checked(compressedLength * MaxExpansion));
        return Math.Min(Math.Min(byRatio, MaxImageSize), Array.MaxLength);
    }
}
