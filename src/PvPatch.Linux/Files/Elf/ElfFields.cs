using System.Buffers.Binary;

namespace PvPatch.Linux.Files;

/// <summary>
/// Reads the fields of one header of a 32- or 64-bit little-endian ELF file. The caller has checked that the header lies inside
/// the file; each field is named by its offset in both classes.
/// </summary>
internal readonly ref struct ElfFields(ReadOnlySpan<byte> record, bool is64)
{
    private readonly ReadOnlySpan<byte> _record = record;
    private readonly bool _is64 = is64;

    /// <summary>A field of 2 bytes.</summary>
    public ushort Half(int offset32, int offset64) =>
        BinaryPrimitives.ReadUInt16LittleEndian(_record[(_is64 ? offset64 : offset32)..]);

    /// <summary>A field of 4 bytes in both classes.</summary>
    public uint Word(int offset32, int offset64) =>
        BinaryPrimitives.ReadUInt32LittleEndian(_record[(_is64 ? offset64 : offset32)..]);

    /// <summary>A field of 4 bytes in 32-bit files and 8 bytes in 64-bit files.</summary>
    public ulong Native(int offset32, int offset64) => _is64
        ? BinaryPrimitives.ReadUInt64LittleEndian(_record[offset64..])
        : BinaryPrimitives.ReadUInt32LittleEndian(_record[offset32..]);
}
