namespace RiscV.Host;

/// <summary>A program: what goes where, and where it begins.</summary>
/// <param name="Entry">Address of the first instruction.</param>
/// <param name="Segments">What is loaded.</param>
internal sealed record GuestImage(ulong Entry, IReadOnlyList<GuestSegment> Segments)
{
    /// <summary>The first address behind everything: where the heap begins.</summary>
    public ulong End => Segments.Max(static s => s.Address + s.Size);

    public ulong Start => Segments.Min(static s => s.Address);

    /// <summary>Where code may be executed: one stretch around all executable segments.</summary>
    public (ulong Start, ulong End) Code
    {
        get
        {
            GuestSegment[] code = [.. Segments.Where(static s => s.Executable)];
            return code.Length == 0
                ? (0, 0) : (code.Min(static s => s.Address) & ~3UL, code.Max(static s => s.Address + (ulong)s.Bytes.Length) & ~3UL);
        }
    }

    /// <summary>A program that is nothing but code.</summary>
    public static GuestImage OfCode(byte[] code, ulong address = 0x10000) =>
        new(address, [new GuestSegment(address, code, (ulong)code.Length, true)]);
}

/// <summary>A stretch of a program.</summary>
/// <param name="Address">Where it goes.</param>
/// <param name="Bytes">Its contents; zeros follow up to <paramref name="Size"/>.</param>
/// <param name="Size">Its size in memory.</param>
/// <param name="Executable">Whether it holds code.</param>
internal sealed record GuestSegment(ulong Address, ReadOnlyMemory<byte> Bytes, ulong Size, bool Executable);
