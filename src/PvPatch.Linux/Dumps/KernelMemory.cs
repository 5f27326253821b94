using System.Globalization;

namespace PvPatch.Linux.Dumps;

/// <summary>Way in which a kernel was found in a memory file.</summary>
public enum KernelFoundBy
{
    /// <summary>At its link addresses: no KASLR.</summary>
    LinkAddress,

    /// <summary>By the core's own notes.</summary>
    Notes,

    /// <summary>By a search for its bytes.</summary>
    Signature,

    /// <summary>By page tables in physical memory: its pages are scattered, or contiguous pages that match it are a copy.</summary>
    PageTables,
}

/// <summary>A kernel's memory in a dump, read by link addresses. Made by <see cref="KernelMemoryLocator"/>.</summary>
/// <remarks>A view into the <see cref="MemoryFile"/>, which must stay open.</remarks>
public sealed class KernelMemory
{
    private readonly MemorySpace _space;
    private readonly ulong _displacement;
    private readonly ulong _mask;

    internal KernelMemory(MemoryFile file, MemorySpace space, ulong displacement, int bitness)
    {
        File = file;
        _space = space;
        _displacement = displacement;
        _mask = bitness == 32 && space.Segments[^1].Last <= uint.MaxValue ? uint.MaxValue : ulong.MaxValue;
        Bitness = bitness;
    }

    /// <summary>The file it is in.</summary>
    public MemoryFile File { get; }

    /// <summary>The kernel's bitness.</summary>
    public int Bitness { get; }

    /// <summary>Whether it is read by physical addresses.</summary>
    public bool IsPhysical => ReferenceEquals(_space, File.PhysicalSpace);

    /// <summary>
    /// Number added to a link address to get the address in the file: virtual, physical, or from the base given for raw memory. Modulo
    /// 2^64.
    /// </summary>
    public long Displacement => unchecked((long)_displacement);

    /// <summary>The KASLR slide of the kernel's virtual addresses in bytes; <see langword="null"/> where it is not known.</summary>
    public long? Slide { get; internal init; }

    /// <summary>Way in which it was found.</summary>
    public KernelFoundBy FoundBy { get; internal init; }

    /// <summary>Number of pieces of the image that were compared with the memory for confirmation.</summary>
    public int PiecesCompared { get; internal init; }

    /// <summary>Number of these pieces that match; the kernel's start changes some pieces of code.</summary>
    public int PiecesMatched { get; internal init; }

    /// <summary>
    /// Warnings: those of the file, a base that does not fit (PV6130), wrong notes (PV6131), an unknown slide (PV6139). Damage that is
    /// met while memory is read (PV6154) joins them then.
    /// </summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics
    {
        get => File.Damage is PatchDiagnostic damage ? [.. field.Where(d => d.Code != damage.Code), damage] : field;
        internal init;
    } = [];

    /// <summary>Reads the kernel's memory.</summary>
    /// <param name="linkAddress">The link address (KASLR not included).</param>
    /// <param name="destination">The buffer to fill.</param>
    /// <returns>Whether the file holds the whole range; if not, the content of <paramref name="destination"/> is undefined.</returns>
    public bool TryRead(VirtualAddress linkAddress, Span<byte> destination) => _space.TryRead(AddressOf(linkAddress.Value), destination);

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{(IsPhysical ? "physical" : "virtual")} memory at link addresses {Signed(Displacement)}, slide "
            + $"{(Slide is long slide ? Signed(slide) : "unknown")}, {PiecesMatched} of {PiecesCompared} pieces matched");

    internal static string Signed(long value) =>
        string.Create(
            CultureInfo.InvariantCulture, $"{(value < 0 ? "-" : "+")}0x{(value < 0 ? unchecked(0UL - (ulong)value) : (ulong)value):x}");

    private ulong AddressOf(ulong linkAddress) => unchecked(linkAddress + _displacement) & _mask;
}
