using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Dumps;

/// <summary>Format of a memory file.</summary>
public enum MemoryFileKind
{
    /// <summary>Raw bytes from one address on.</summary>
    Raw,

    /// <summary>An ELF core.</summary>
    ElfCore,

    /// <summary>A LiME dump: ranges of physical memory.</summary>
    Lime,

    /// <summary>A kdump-compressed dump: pages of physical memory, each compressed.</summary>
    Kdump,
}

/// <summary>
/// A memory dump: raw memory from a given address on, an ELF core as QEMU's dump-guest-memory, makedumpfile and /proc/kcore give, a
/// kdump-compressed dump, or a LiME dump; also in makedumpfile's flattened form. Only requested ranges are read; files may be larger than
/// memory, and parts of them may be missing.
/// </summary>
/// <remarks>Safe for reading from several threads. Dispose closes the file.</remarks>
public sealed class MemoryFile : IDisposable
{
    private readonly MemorySource _source;
    private readonly IReadOnlyList<PatchDiagnostic> _warnings;

    private MemoryFile(DumpContent content, string path, IReadOnlyList<PatchDiagnostic> warnings)
    {
        _source = content.Source;
        _warnings = warnings;
        Path = path;
        Kind = content.Kind;
        IsFlattened = content.IsFlattened;
        Bitness = content.Bitness;
        Notes = content.Notes;
        VirtualSpace = content.Virtual;
        PhysicalSpace = content.Physical;
    }

    /// <summary>The path given when it was opened.</summary>
    public string Path { get; }

    /// <summary>The format.</summary>
    public MemoryFileKind Kind { get; }

    /// <summary>The bitness of the machine, 32 or 64; <see langword="null"/> for raw memory and LiME dumps, which do not say it.</summary>
    public int? Bitness { get; }

    /// <summary>Whether the format was read out of makedumpfile's flattened form.</summary>
    internal bool IsFlattened { get; }

    /// <summary>The kernel's own description in the notes of a dump; <see langword="null"/> without such a note.</summary>
    internal VmCoreInfo? Notes { get; }

    /// <summary>What was met so far that the file has and that cannot be read (PV6154).</summary>
    internal PatchDiagnostic? Damage => _source.Damage is PatchDiagnostic damage ? damage with { Source = Path } : null;

    /// <summary>
    /// Warnings about a file that can be read: cut short (PV6125), overlapping segments (PV6126), damaged notes (PV6127), a damaged range
    /// (PV6155), pages met so far that cannot be unpacked (PV6154).
    /// </summary>
    public IReadOnlyList<PatchDiagnostic> Warnings => Damage is PatchDiagnostic damage ? [.. _warnings, damage] : _warnings;

    /// <summary>Whether the file has virtual addresses of the kernel. Raw memory counts as such, whatever its base.</summary>
    public bool HasVirtualAddresses => !VirtualSpace.IsEmpty;

    /// <summary>Whether the file has physical addresses.</summary>
    public bool HasPhysicalAddresses => !PhysicalSpace.IsEmpty;

    internal MemorySpace VirtualSpace { get; }

    internal MemorySpace PhysicalSpace { get; }

    /// <summary>Opens a dump: as raw memory where a base address is given, else by the format that its first bytes tell.</summary>
    /// <param name="path">The file. A regular file or /proc/kcore; no pipe.</param>
    /// <param name="baseAddress">
    /// The address of the first byte of raw memory: virtual, or physical (the kernel is then found by its content); <see langword="null"/>
    /// for every other format.
    /// </param>
    /// <param name="file">The file, to be disposed.</param>
    /// <param name="error">The reason where it can't be read: PV6120 to PV6124, PV6150 to PV6156.</param>
    /// <returns>Whether it was opened.</returns>
    public static bool TryOpen(
        string path, VirtualAddress? baseAddress, [NotNullWhen(true)] out MemoryFile? file, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        file = null;
        MemorySource source;
        try
        {
            source = new FileMemorySource(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryUnreadable, "the memory file cannot be opened") with
            {
                Source = path,
                Found = exception.Message
            };
            return false;
        }

        return TryOpen(source, path, baseAddress, out file, out error);
    }

    /// <summary>
    /// Opens a dump, or throws. See <see cref="TryOpen(string, VirtualAddress?, out MemoryFile?, out PatchDiagnostic?)"/>.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="baseAddress">The address of the first byte of raw memory; <see langword="null"/> for every other format.</param>
    /// <returns>The file, to be disposed.</returns>
    /// <exception cref="PatchException">It can't be read: PV6120 to PV6124, PV6150 to PV6156.</exception>
    public static MemoryFile Open(string path, VirtualAddress? baseAddress = null) =>
        TryOpen(path, baseAddress, out MemoryFile? file, out PatchDiagnostic? error) ? file : throw new PatchException(error);

    /// <summary>Reads memory by virtual address.</summary>
    /// <param name="address">The address at the time of the dump, KASLR included.</param>
    /// <param name="destination">The buffer to fill.</param>
    /// <returns>Whether the file holds the whole range; if not, the content of <paramref name="destination"/> is undefined.</returns>
    public bool TryReadVirtual(VirtualAddress address, Span<byte> destination) => VirtualSpace.TryRead(address.Value, destination);

    /// <summary>Reads memory by physical address.</summary>
    /// <param name="address">The physical address.</param>
    /// <param name="destination">The buffer to fill.</param>
    /// <returns>Whether the file holds the whole range; if not, the content of <paramref name="destination"/> is undefined.</returns>
    public bool TryReadPhysical(ulong address, Span<byte> destination) => PhysicalSpace.TryRead(address, destination);

    /// <summary>Closes the file.</summary>
    public void Dispose() => _source.Dispose();

    /// <summary>Opens a source, which the file then owns; it is disposed where there is no file.</summary>
    internal static bool TryOpen(MemorySource source, string path, VirtualAddress? baseAddress, [NotNullWhen(true)] out MemoryFile? file,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        file = null;
        List<PatchDiagnostic> warnings = [];
        bool opened = baseAddress is VirtualAddress start ? TryRaw(source, start, warnings, out DumpContent? content, out error)
            : DumpReader.TryRead(source, warnings, out content, out error);
        if (opened)
        {
            file = new MemoryFile(content!, path, warnings);
            error = null;
            return true;
        }

        source.Dispose();
        error = error! with { Source = path };
        return false;
    }

    private static bool TryRaw(MemorySource source, VirtualAddress start, List<PatchDiagnostic> warnings,
        [NotNullWhen(true)] out DumpContent? content, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        content = null;
        if (source.Length is 0 or long.MaxValue)
        {
            error = DumpReader.Empty("the memory file is empty, or has no length");
            return false;
        }

        long length = Math.Min(source.Length, (long)Math.Min(ulong.MaxValue - start.Value, long.MaxValue - 1) + 1);
        if (length < source.Length)
        {
            warnings.Add(
                PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreBadSegments, "the raw memory runs over the end of the address space") with
                {
                    Address = start,
                    Found = $"{source.Length} bytes",
                    Expected = $"at most {length}",
                    Help = "Is the base address right?",
                });
        }

        error = null;
        content = new DumpContent(MemoryFileKind.Raw, source)
        {
            Virtual = MemorySpace.OfSorted(source, [new MemorySegment(start.Value, 0, length)]),
            Physical = MemorySpace.OfSorted(source, []),
        };
        return true;
    }
}
