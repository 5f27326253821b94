using System.Buffers.Binary;

namespace PvPatch.Linux.Files;

/// <summary>The 12 bytes with which every BTF type starts: name, kind with the number of parts, and size or referred type.</summary>
internal readonly struct BtfTypeRecord
{
    public const int HeaderSize = 12;

    private readonly uint _info;

    public BtfTypeRecord(ReadOnlySpan<byte> types, int offset)
    {
        ReadOnlySpan<byte> record = types.Slice(offset, HeaderSize);
        Offset = offset;
        NameOffset = BinaryPrimitives.ReadUInt32LittleEndian(record);
        _info = BinaryPrimitives.ReadUInt32LittleEndian(record[4..]);
        SizeOrType = BinaryPrimitives.ReadUInt32LittleEndian(record[8..]);
    }

    /// <summary>Where the record starts in the type part.</summary>
    public int Offset { get; }

    public uint NameOffset { get; }

    /// <summary>The size in bytes of structs, unions, enums and numbers; the type referred to by the others.</summary>
    public uint SizeOrType { get; }

    public BtfKind Kind => (BtfKind)((_info >> 24) & 0x1f);

    /// <summary>The number of members, values or parameters that follow.</summary>
    public int Count => (int)(_info & 0xffff);

    /// <summary>For structs and unions: whether the members' offsets carry bit-field sizes.</summary>
    public bool KindFlag => _info >> 31 != 0;

    /// <summary>Whether the type is another name of, or a qualifier on, the type it refers to.</summary>
    public bool IsAlias => Kind is BtfKind.Typedef or BtfKind.Volatile or BtfKind.Const or BtfKind.Restrict or BtfKind.TypeTag;

    /// <summary>The bytes that follow the 12 by kind and count; -1 for an unknown kind.</summary>
    public int TrailingSize => Kind switch
    {
        BtfKind.Int or BtfKind.Variable or BtfKind.DeclarationTag => 4,
        BtfKind.Array => 12,
        BtfKind.Struct or BtfKind.Union or BtfKind.DataSection or BtfKind.Enum64 => 12 * Count,
        BtfKind.Enum or BtfKind.FunctionPrototype => 8 * Count,
        BtfKind.Pointer or BtfKind.Forward or BtfKind.Typedef or BtfKind.Volatile or BtfKind.Const or BtfKind.Restrict
            or BtfKind.Function or BtfKind.Float or BtfKind.TypeTag => 0,
        _ => -1,
    };
}
