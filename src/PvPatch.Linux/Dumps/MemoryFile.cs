using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>Format of a memory file.</summary>
public enum MemoryFileKind
{
    /// <summary>Raw bytes from one address on.</summary>
    Raw,

    /// <summary>An ELF core.</summary>
    ElfCore,
}

/// <summary>
/// A memory dump: raw memory from a given address on, or an ELF core as QEMU's dump-guest-memory, makedumpfile and /proc/kcore give. Only
/// requested ranges are read; files may be larger than memory, and parts of them may be missing.
/// </summary>
/// <remarks>Safe for reading from several threads. Dispose closes the file.</remarks>
public sealed class MemoryFile : IDisposable
{
    private readonly MemorySource _source;

    private MemoryFile(MemorySource source, string path, MemoryFileKind kind, MemorySpace virtualSpace, MemorySpace physicalSpace)
    {
        _source = source;
        Path = path;
        Kind = kind;
        VirtualSpace = virtualSpace;
        PhysicalSpace = physicalSpace;
    }

    /// <summary>The path given when it was opened.</summary>
    public string Path { get; }

    /// <summary>The format.</summary>
    public MemoryFileKind Kind { get; }

    /// <summary>The bitness of the machine, 32 or 64; <see langword="null"/> for raw memory.</summary>
    public int? Bitness { get; private init; }

    /// <summary>The kernel's own description in the notes of a core; <see langword="null"/> without such a note.</summary>
    internal VmCoreInfo? Notes { get; private init; }

    /// <summary>
    /// Warnings about a file that can be read: cut short (PV6125), overlapping segments (PV6126), damaged notes (PV6127).
    /// </summary>
    public IReadOnlyList<PatchDiagnostic> Warnings { get; private init; } = [];

    /// <summary>Whether the file has virtual addresses of the kernel. Raw memory counts as such, whatever its base.</summary>
    public bool HasVirtualAddresses => !VirtualSpace.IsEmpty;

    /// <summary>Whether the file has physical addresses.</summary>
    public bool HasPhysicalAddresses => !PhysicalSpace.IsEmpty;

    internal MemorySpace VirtualSpace { get; }

    internal MemorySpace PhysicalSpace { get; }

    /// <summary>Opens a dump: as raw memory where a base address is given, else as an ELF core.</summary>
    /// <param name="path">The file. A regular file or /proc/kcore; no pipe.</param>
    /// <param name="baseAddress">
    /// The address of the first byte of raw memory: virtual, or physical (the kernel is then found by its content); <see langword="null"/>
    /// for a core.
    /// </param>
    /// <param name="file">The file, to be disposed.</param>
    /// <param name="error">The reason where it can't be read: PV6120 to PV6124.</param>
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
    /// <param name="baseAddress">The address of the first byte of raw memory; <see langword="null"/> for a core.</param>
    /// <returns>The file, to be disposed.</returns>
    /// <exception cref="PatchException">It can't be read: PV6120 to PV6124.</exception>
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
        bool opened = baseAddress is VirtualAddress start
            ? TryOpenRaw(source, path, start, out file, out error)
            : TryOpenCore(source, path, out file, out error);
        if (!opened)
        {
            source.Dispose();
            error = error! with { Source = path };
        }

        return opened;
    }

    private static bool TryOpenRaw(MemorySource source, string path, VirtualAddress start, [NotNullWhen(true)] out MemoryFile? file,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        file = null;
        if (source.Length is 0 or long.MaxValue)
        {
            error = Empty("the memory file is empty, or has no length");
            return false;
        }

        long length = Math.Min(source.Length, (long)Math.Min(ulong.MaxValue - start.Value, long.MaxValue - 1) + 1);
        List<PatchDiagnostic> warnings = [];
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
        file = new MemoryFile(source, path, MemoryFileKind.Raw, MemorySpace.Create(source, [new MemorySegment(start.Value, 0, length)]),
            MemorySpace.Create(source, []))
        {
            Warnings = warnings,
        };
        return true;
    }

    private static bool TryOpenCore(
        MemorySource source, string path, [NotNullWhen(true)] out MemoryFile? file, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        file = null;
        if (source.Length == 0)
        {
            error = Empty("the memory file is empty");
            return false;
        }

        if (!CoreHeader.TryRead(source, out CoreHeader? header, out error))
        {
            return false;
        }

        List<PatchDiagnostic> warnings = [];
        CoreLayout layout = CoreLayout.Read(source, header, warnings);
        if (layout.Virtual.IsEmpty && layout.Physical.IsEmpty)
        {
            error = Empty("the core holds no memory") with
            {
                Found =
                    $"{header.SegmentCount} program "
                    + $"headers{(warnings.Count > 0 ? $", and the file ends at {FileRange.Hex((ulong)source.Length)}" : "")}",
                Expected = "segments with bytes in the file",
                Help = header.SegmentCount > 0 ? "Take the dump again."
                    : "A core without program headers, as xl dump-core writes, is not read here: dump the whole machine, or copy "
                        + "/proc/kcore within the guest.",
            };
            return false;
        }

        file = new MemoryFile(source, path, MemoryFileKind.ElfCore, layout.Virtual, layout.Physical)
        {
            Bitness = header.MachineBitness,
            Notes = CoreNotes.Find(source, layout.Notes, warnings),
            Warnings = warnings,
        };
        return true;
    }

    private static PatchDiagnostic Empty(string message) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryEmpty, message) with { Help = "Take the dump again." };
}
