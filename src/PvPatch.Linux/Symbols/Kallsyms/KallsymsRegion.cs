using System.Buffers.Binary;
using System.Runtime.InteropServices;

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

    /// <summary>
    /// The first offset at or behind <paramref name="offset"/> whose address is a multiple of <paramref name="alignment"/>, a power of two.
    /// </summary>
    public long AlignUp(long offset, int alignment) => AlignDown(offset + alignment - 1, alignment);

    /// <summary>
    /// The last offset at or before <paramref name="offset"/> whose address is a multiple of <paramref name="alignment"/>, a power of two.
    /// </summary>
    public long AlignDown(long offset, int alignment) => offset - (long)((Address + (ulong)offset) & (ulong)(alignment - 1));

    /// <summary>Four bytes; the offset was checked by the caller.</summary>
    public static uint Word(ReadOnlySpan<byte> bytes, long offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[(int)offset..]);

    /// <summary>
    /// The offset of the first word at or behind <paramref name="from"/> that can be between two values, or the length where there is
    /// none. Images are searched whole, so this is by vectors.
    /// </summary>
    public static long NextWord(ReadOnlySpan<byte> bytes, long from, uint lowest, uint highest)
    {
        // Where words have another order than the file's, every word can be one: callers look at what they get.
        int next = BitConverter.IsLittleEndian ? MemoryMarshal.Cast<byte, uint>(bytes[(int)from..]).IndexOfAnyInRange(lowest, highest) : 0;
        return next >= 0 ? from + ((long)next * Step) : bytes.Length;
    }

    /// <summary>
    /// The offset of the last word at or before <paramref name="from"/>, not before <paramref name="to"/>, that can be between two values,
    /// or -1.
    /// </summary>
    public static long LastWord(ReadOnlySpan<byte> bytes, long from, long to, uint lowest, uint highest)
    {
        long first = from - ((from - to) & -Step);
        if (from < to || first < 0)
        {
            return -1;
        }

        ReadOnlySpan<uint> words = MemoryMarshal.Cast<byte, uint>(bytes[(int)first..(int)(from + Step)]);
        int last = BitConverter.IsLittleEndian ? words.LastIndexOfAnyInRange(lowest, highest) : words.Length - 1;
        return last >= 0 ? first + ((long)last * Step) : -1;
    }

    /// <summary>Whether the bytes between two offsets are filling.</summary>
    public static bool IsPadding(ReadOnlySpan<byte> bytes, long from, long to) =>
        bytes[(int)from..(int)to].IndexOfAnyExcept((byte)0) < 0;
}
