using System.Globalization;

namespace PvPatch.Linux.Dumps;

/// <summary>How a kernel was found in a memory file.</summary>
public enum KernelFoundBy
{
    /// <summary>It stands at its link addresses: no KASLR.</summary>
    LinkAddress,

    /// <summary>The core's own notes say where it is.</summary>
    Notes,

    /// <summary>Its bytes were looked for.</summary>
    Signature,

    /// <summary>Page tables in physical memory lead to it: its own pages are scattered, or those that look like it are a copy.</summary>
    PageTables,
}

/// <summary>
/// A kernel's memory, read by the addresses of its image file: where it is in a dump was found out by <see cref="KernelMemoryLocator"/>.
/// </summary>
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
    /// What is added to a link address to have the address in the file: virtual, physical, or from the base given for raw memory. Modulo
    /// 2^64.
    /// </summary>
    public long Displacement => unchecked((long)_displacement);

    /// <summary>By how much KASLR moved the kernel's virtual addresses; <see langword="null"/> where it can't be told.</summary>
    public long? Slide { get; internal init; }

    /// <summary>How it was found.</summary>
    public KernelFoundBy FoundBy { get; internal init; }

    /// <summary>How many pieces of the image were compared with the memory to make sure.</summary>
    public int PiecesCompared { get; internal init; }

    /// <summary>How many of them stand there; the start changes some pieces of code.</summary>
    public int PiecesMatched { get; internal init; }

    /// <summary>
    /// What is odd: those of the file, a base that does not fit (PV6130), notes that are wrong (PV6131), a slide that is not known
    /// (PV6139).
    /// </summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics { get; internal init; } = [];

    /// <summary>Reads the kernel's memory.</summary>
    /// <param name="linkAddress">The address by the image file, KASLR not included.</param>
    /// <param name="destination">What to fill.</param>
    /// <returns>Whether the file holds all of it; where not, the content of <paramref name="destination"/> is of no use.</returns>
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
