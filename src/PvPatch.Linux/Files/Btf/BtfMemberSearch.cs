using System.Buffers.Binary;

namespace PvPatch.Linux.Files;

/// <summary>Where a member of a struct is.</summary>
/// <param name="Offset">Its offset in bytes from the start of the struct.</param>
/// <param name="Size">Its size in bytes; 0 where its type does not tell.</param>
internal readonly record struct BtfMemberPlace(int Offset, int Size);

/// <summary>
/// Finds one member of a struct, also in the structs and unions without a name in it. The others may be of any kind, bit fields too.
/// </summary>
internal static class BtfMemberSearch
{
    private const int MemberSize = 12;
    private const int MaxDepth = 4;
    private const int MaxSteps = 4096;

    /// <summary>Finds a member.</summary>
    /// <param name="btf">The type information.</param>
    /// <param name="structName">The struct's name.</param>
    /// <param name="member">The member's name.</param>
    /// <param name="place">Where it is.</param>
    /// <returns>Whether there is one such struct, with a member of that name that is no bit field and lies inside it.</returns>
    public static bool TryFind(BtfFile btf, string structName, string member, out BtfMemberPlace place)
    {
        place = default;
        int steps = 0;
        return btf.TryFindStruct(structName, out BtfTypeRecord record, out _)
            && record.SizeOrType <= int.MaxValue
            && TryFind(btf, record, System.Text.Encoding.UTF8.GetBytes(member), 0, (int)record.SizeOrType, 0, ref steps, out place);
    }

    private static bool TryFind(
        BtfFile btf, BtfTypeRecord record, ReadOnlySpan<byte> wanted, int start, int end, int depth, ref int steps, out BtfMemberPlace place)
    {
        place = default;
        for (int i = 0; i < record.Count && ++steps < MaxSteps; i++)
        {
            ReadOnlySpan<byte> member = btf.Types.Slice(record.Offset + BtfTypeRecord.HeaderSize + (i * MemberSize), MemberSize);
            uint offset = BinaryPrimitives.ReadUInt32LittleEndian(member[8..]);
            uint bitFieldSize = record.KindFlag ? offset >> 24 : 0;
            uint bits = record.KindFlag ? offset & 0xffffff : offset;
            if (bitFieldSize != 0 || bits % 8 != 0 || bits / 8 > (uint)(end - start)
                || !btf.TryGetName(BinaryPrimitives.ReadUInt32LittleEndian(member), out ReadOnlySpan<byte> name))
            {
                continue;
            }

            int at = start + (int)(bits / 8);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(member[4..]);
            if (name.SequenceEqual(wanted))
            {
                place = new BtfMemberPlace(at, (int)Math.Min(SizeOf(btf, type), end - at));
                return true;
            }

            if (name.IsEmpty && depth < MaxDepth && TryResolve(btf, type, out BtfTypeRecord nested)
                && nested.Kind is BtfKind.Struct or BtfKind.Union
                && TryFind(btf, nested, wanted, at, end, depth + 1, ref steps, out place))
            {
                return true;
            }
        }

        return false;
    }

    private static long SizeOf(BtfFile btf, uint type)
    {
        if (!TryResolve(btf, type, out BtfTypeRecord record))
        {
            return 0;
        }

        if (record.Kind != BtfKind.Array)
        {
            return record.Kind is BtfKind.Struct or BtfKind.Union or BtfKind.Int or BtfKind.Enum or BtfKind.Enum64
                ? record.SizeOrType : record.Kind == BtfKind.Pointer ? sizeof(ulong) : 0;
        }

        ReadOnlySpan<byte> array = btf.Types.Slice(record.Offset + BtfTypeRecord.HeaderSize, 12);
        return TryResolve(btf, BinaryPrimitives.ReadUInt32LittleEndian(array), out BtfTypeRecord element) && element.Kind == BtfKind.Int
            ? (long)element.SizeOrType * BinaryPrimitives.ReadUInt32LittleEndian(array[8..]) : 0;
    }

    private static bool TryResolve(BtfFile btf, uint type, out BtfTypeRecord record)
    {
        for (int i = 0; i < 32; i++)
        {
            if (!btf.TryGetType(type, out record))
            {
                return false;
            }

            if (!record.IsAlias)
            {
                return true;
            }

            type = record.SizeOrType;
        }

        record = default;
        return false;
    }
}
