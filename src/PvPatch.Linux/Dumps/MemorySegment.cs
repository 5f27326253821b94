namespace PvPatch.Linux.Dumps;

/// <summary>A run of bytes in a memory file and the address of the first.</summary>
/// <param name="Address">The address, virtual or physical by the space the segment is in.</param>
/// <param name="FileOffset">Offset of the bytes in the file.</param>
/// <param name="Length">Their number, all within the file and the address space.</param>
internal readonly record struct MemorySegment(ulong Address, long FileOffset, long Length)
{
    /// <summary>The address of the last byte. The end itself may not be a number: a segment may end with the address space.</summary>
    public ulong Last => Address + (ulong)(Length - 1);
}
