using System.Buffers.Binary;

namespace PvPatch.Records;

/// <summary>The mechanism of a record, byte 1.</summary>
internal enum RecordMechanism : byte
{
    /// <summary>A call, jump or direct call of an operation.</summary>
    Ops = 1,

    /// <summary>A nop or jump of a static key.</summary>
    StaticKey = 2,

    /// <summary>A static call, tail call or conditional tail call.</summary>
    StaticCall = 3,

    /// <summary>One variant of a region.</summary>
    Variant = 4,

    /// <summary>One replacement of a region, for a processor feature.</summary>
    Alternative = 5,

    /// <summary>One way of a multiway branch.</summary>
    MultiBranch = 6,
}

/// <summary>
/// One record of the section <c>pvpatch_sites</c>: 32 bytes, the same in 32- and 64-bit code. <c>pvpatch.inc</c> writes them,
/// docs/site-sections.md explains them.
/// </summary>
/// <remarks>
/// <code>
/// offset  0 version  1 mechanism  2 form  3 flags  4 site       8 length   10 number  12 name
///        16 target  20 size      22 zero           24 value    28 key
/// </code>
/// The fields site, name, target and key hold the distance from the field itself to what they refer to, so the table needs no relocation
/// when the code moves; 0 refers to nothing. Multi-byte fields are little-endian.
/// </remarks>
internal readonly ref struct RecordFields
{
    public const int Length = 32;
    public const byte Version = 1;

    private const int SiteOffset = 4;
    private const int NameOffset = 12;
    private const int TargetOffset = 16;
    private const int KeyOffset = 28;

    private readonly ReadOnlySpan<byte> _bytes;
    private readonly ulong _address;
    private readonly ulong _addresses; // the mask of an address

    public RecordFields(ReadOnlySpan<byte> bytes, VirtualAddress address, int bitness)
    {
        _bytes = bytes[..Length];
        _address = address.Value;
        _addresses = bitness == 32 ? uint.MaxValue : ulong.MaxValue;
    }

    public byte RecordVersion => _bytes[0];

    public byte Mechanism => _bytes[1];

    public byte Form => _bytes[2];

    public byte Flags => _bytes[3];

    /// <summary>Run address of the site's first byte; 0 where the field refers to nothing.</summary>
    public VirtualAddress Site => Reference(SiteOffset);

    /// <summary>The site's length in bytes.</summary>
    public int SiteLength => BinaryPrimitives.ReadUInt16LittleEndian(_bytes[8..]);

    public ushort Number => BinaryPrimitives.ReadUInt16LittleEndian(_bytes[10..]);

    /// <summary>Run address of the name's first byte; 0 where there is none.</summary>
    public VirtualAddress Name => Reference(NameOffset);

    /// <summary>Run address of the target; 0 where there is none.</summary>
    public VirtualAddress Target => Reference(TargetOffset);

    /// <summary>The target's length in bytes.</summary>
    public ushort TargetLength => BinaryPrimitives.ReadUInt16LittleEndian(_bytes[20..]);

    public ushort Zero => BinaryPrimitives.ReadUInt16LittleEndian(_bytes[22..]);

    public uint Value => BinaryPrimitives.ReadUInt32LittleEndian(_bytes[24..]);

    /// <summary>Run address of the key's object; 0 where there is none.</summary>
    public VirtualAddress Key => Reference(KeyOffset);

    /// <summary>
    /// What a field refers to. Distances wrap as addresses do, at 2^32 in 32-bit code; that what is referred to exists is asked later.
    /// </summary>
    private VirtualAddress Reference(int offset)
    {
        int distance = BinaryPrimitives.ReadInt32LittleEndian(_bytes[offset..]);
        return new VirtualAddress(distance == 0 ? 0 : unchecked(_address + (ulong)offset + (ulong)distance) & _addresses);
    }
}
