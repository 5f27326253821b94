using System.Buffers.Binary;

namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>A piece of the image that may hold the tables: a loaded section, or a segment where there are no section headers.</summary>
/// <param name="Bytes">Its bytes in the file.</param>
/// <param name="Address">The address of the first of them.</param>
/// <param name="FileOffset">Where they are in the file.</param>
/// <param name="Name">For messages.</param>
/// <param name="Is64">Whether the kernel is 64-bit.</param>
internal sealed record KallsymsRegion(ReadOnlyMemory<byte> Bytes, ulong Address, long FileOffset, string Name, bool Is64)
{
    /// <summary>Every table starts at a multiple of four at least: up to 6.x at one of the size of an address, since 7.0 of four.</summary>
    public const int Step = 4;

    /// <summary>The size of an address in bytes; there is less filling than that between two tables.</summary>
    public int AddressSize => Is64 ? 8 : 4;

    public int Length => Bytes.Length;

    /// <summary>The first offset at or behind <paramref name="offset"/> whose address is a multiple of <paramref name="alignment"/>, a power of two.</summary>
    public long AlignUp(long offset, int alignment) => AlignDown(offset + alignment - 1, alignment);

    /// <summary>The last offset at or before <paramref name="offset"/> whose address is a multiple of <paramref name="alignment"/>, a power of two.</summary>
    public long AlignDown(long offset, int alignment) => offset - (long)((Address + (ulong)offset) & (ulong)(alignment - 1));

    /// <summary>Four bytes; the offset was checked by the caller.</summary>
    public static uint Word(ReadOnlySpan<byte> bytes, long offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[(int)offset..]);

    /// <summary>Whether the bytes between two offsets are filling.</summary>
    public static bool IsPadding(ReadOnlySpan<byte> bytes, long from, long to) =>
        bytes[(int)from..(int)to].IndexOfAnyExcept((byte)0) < 0;
}
