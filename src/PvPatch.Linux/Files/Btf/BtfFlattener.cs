using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PvPatch.Linux.Files;

/// <summary>
/// Walks a struct and the structs in it. Types from a file may contain themselves, or each other so often that the walk would
/// never end: depth, steps and members are all bounded.
/// </summary>
internal sealed class BtfFlattener(BtfFile file, string structName, int pointerSize)
{
    // Tables of operations are 3 levels deep and have about 100 members.
    private const int MaxDepth = 16;
    private const int MaxSteps = 8192;
    private const int MaxMembers = 4096;
    private const int MaxPathLength = 256;
    private const int MemberSize = 12;

    private readonly BtfFile _file = file;
    private readonly string _structName = structName;
    private readonly int _pointerSize = pointerSize;
    private readonly List<BtfMember> _members = [];
    private int _steps;
    private PatchDiagnostic? _error;

    public bool TryFlatten(BtfTypeRecord root, [NotNullWhen(true)] out BtfStruct? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        bool done = root.SizeOrType <= int.MaxValue
            ? TryMembers(root, "", 0, (int)root.SizeOrType, _structName, 0)
            : Fail(KernelDiagnosticCodes.BtfBadMember, "is too large", root, $"{root.SizeOrType} bytes");
        layout = done ? new BtfStruct(_structName, (int)root.SizeOrType, _members) : null;
        error = _error;
        return done;
    }

    // The parts of a struct or union; start and size are those of the range its members must stay in.
    private bool TryMembers(BtfTypeRecord record, string path, int start, int size, string wrapper, int depth)
    {
        if (depth > MaxDepth)
        {
            return Fail(
                KernelDiagnosticCodes.BtfTooDeep, "contains itself or is nested too deeply", record, $"more than {MaxDepth} levels");
        }

        for (int i = 0; i < record.Count; i++)
        {
            ReadOnlySpan<byte> member = _file.Types.Slice(record.Offset + BtfTypeRecord.HeaderSize + (i * MemberSize), MemberSize);
            uint nameOffset = BinaryPrimitives.ReadUInt32LittleEndian(member);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(member[4..]);
            uint offset = BinaryPrimitives.ReadUInt32LittleEndian(member[8..]);

            // With the kind flag the upper 8 bits are the size of a bit field, 0 for whole members.
            uint bitFieldSize = record.KindFlag ? offset >> 24 : 0;
            uint bits = record.KindFlag ? offset & 0xffffff : offset;
            if (bitFieldSize != 0 || bits % 8 != 0 || bits / 8 > (uint)size)
            {
                return Fail(KernelDiagnosticCodes.BtfBadMember, $"has a member ({i}) that is a bit field or lies outside of it", record,
                    $"{bits} bits on, {bitFieldSize} bits wide");
            }

            if (!_file.TryGetName(nameOffset, out ReadOnlySpan<byte> name))
            {
                return Fail(KernelDiagnosticCodes.BtfBadReference, $"has a member ({i}) whose name does not exist", record,
                    $"name {FileRange.Hex(nameOffset)}");
            }

            if (!TryJoin(path, name, record, out string? memberPath)
                || !TryType(type, memberPath, start + (int)(bits / 8), size - (int)(bits / 8), wrapper, record, depth))
            {
                return false;
            }
        }

        return true;
    }

    // A type at a place of which at most `room` bytes belong to what it stands in.
    private bool TryType(uint id, string path, int offset, int room, string wrapper, BtfTypeRecord owner, int depth)
    {
        if (!TryResolve(id, owner, out BtfTypeRecord record))
        {
            return false;
        }

        switch (record.Kind)
        {
            case BtfKind.Struct or BtfKind.Union:
                if (record.SizeOrType > (uint)room)
                {
                    return Fail(KernelDiagnosticCodes.BtfBadMember, $"has a member ({path}) that does not fit into it", owner,
                        $"{record.SizeOrType} bytes in {room}");
                }

                return TryNested(record, path, offset, wrapper, depth);
            case BtfKind.Array:
                return TryArray(record, path, offset, room, wrapper, depth);
            case BtfKind.Pointer:
                return TryLeaf(path, offset, (uint)_pointerSize, true, room, wrapper, owner);
            case BtfKind.Int or BtfKind.Enum or BtfKind.Enum64 or BtfKind.Float:
                return TryLeaf(path, offset, record.SizeOrType, false, room, wrapper, owner);
            default:
                return Fail(
                    KernelDiagnosticCodes.BtfBadMember, $"has a member ({path}) of a type without a size", owner, $"kind {record.Kind}");
        }
    }

    private bool TryNested(BtfTypeRecord record, string path, int offset, string wrapper, int depth)
    {
        if (!_file.TryGetName(record.NameOffset, out ReadOnlySpan<byte> name))
        {
            return Fail(KernelDiagnosticCodes.BtfBadReference, "has a name that does not exist", record,
                $"name {FileRange.Hex(record.NameOffset)}");
        }

        string innermost = name.IsEmpty ? wrapper : System.Text.Encoding.UTF8.GetString(name);
        return TryMembers(record, path, offset, (int)record.SizeOrType, innermost, depth + 1);
    }

    private bool TryArray(BtfTypeRecord record, string path, int offset, int room, string wrapper, int depth)
    {
        ReadOnlySpan<byte> array = _file.Types.Slice(record.Offset + BtfTypeRecord.HeaderSize, 12);
        uint element = BinaryPrimitives.ReadUInt32LittleEndian(array);
        uint count = BinaryPrimitives.ReadUInt32LittleEndian(array[8..]);
        if (count == 0)
        {
            return true;
        }

        if (!TrySizeOf(element, record, 0, out long size))
        {
            return false;
        }

        if (size == 0 || size > room / count)
        {
            return Fail(KernelDiagnosticCodes.BtfBadMember, $"is an array ({path}) that does not fit where it stands", record,
                $"{count} times {size} bytes in {room}");
        }

        for (int i = 0; i < count; i++)
        {
            string elementPath = string.Create(CultureInfo.InvariantCulture, $"{path}[{i}]");
            if (!TryType(element, elementPath, offset + (i * (int)size), (int)size, wrapper, record, depth + 1))
            {
                return false;
            }
        }

        return true;
    }

    private bool TryLeaf(string path, int offset, uint size, bool isPointer, int room, string wrapper, BtfTypeRecord owner)
    {
        if (size == 0 || size > (uint)room || _members.Count == MaxMembers)
        {
            return _members.Count == MaxMembers
                ? Fail(KernelDiagnosticCodes.BtfTooDeep, "has too many members", owner, $"more than {MaxMembers}")
                : Fail(KernelDiagnosticCodes.BtfBadMember, $"has a member ({path}) that does not fit into it", owner,
                    $"{size} bytes in {room}");
        }

        const string WrappedName = ".func";
        bool calleeSave = wrapper == BtfMember.CalleeSaveStruct && path.EndsWith(WrappedName, StringComparison.Ordinal);
        _members.Add(new BtfMember(calleeSave ? path[..^WrappedName.Length] : path, offset, (int)size, isPointer, wrapper));
        return true;
    }

    // Follows typedefs and qualifiers to the type itself.
    private bool TryResolve(uint id, BtfTypeRecord owner, out BtfTypeRecord record)
    {
        uint next = id;
        do
        {
            if (++_steps > MaxSteps)
            {
                record = owner;
                return Fail(
                    KernelDiagnosticCodes.BtfTooDeep, "refers to itself or has too many parts", owner, $"more than {MaxSteps} steps");
            }

            if (!_file.TryGetType(next, out record))
            {
                return Fail(KernelDiagnosticCodes.BtfBadReference, "refers to a type that does not exist", owner, $"type {next}");
            }

            next = record.SizeOrType;
        }
        while (record.IsAlias);
        return true;
    }

    private bool TrySizeOf(uint id, BtfTypeRecord owner, int depth, out long size)
    {
        size = 0;
        if (!TryResolve(id, owner, out BtfTypeRecord record))
        {
            return false;
        }

        if (depth > MaxDepth)
        {
            return Fail(
                KernelDiagnosticCodes.BtfTooDeep, "contains itself or is nested too deeply", record, $"more than {MaxDepth} levels");
        }

        if (record.Kind == BtfKind.Array)
        {
            ReadOnlySpan<byte> array = _file.Types.Slice(record.Offset + BtfTypeRecord.HeaderSize, 12);
            uint element = BinaryPrimitives.ReadUInt32LittleEndian(array);
            uint count = BinaryPrimitives.ReadUInt32LittleEndian(array[8..]);
            bool known = TrySizeOf(element, record, depth + 1, out long one);
            size = one > int.MaxValue ? one : one * count;
            return known;
        }

        size = record.Kind switch
        {
            BtfKind.Pointer => _pointerSize,
            BtfKind.Struct or BtfKind.Union or BtfKind.Int or BtfKind.Enum or BtfKind.Enum64 or BtfKind.Float => record.SizeOrType,
            _ => 0,
        };
        return true;
    }

    private bool TryJoin(string path, ReadOnlySpan<byte> name, BtfTypeRecord owner, [NotNullWhen(true)] out string? joined)
    {
        joined = null;
        if (path.Length + name.Length > MaxPathLength)
        {
            return Fail(KernelDiagnosticCodes.BtfTooDeep, "has names that are too long", owner, $"more than {MaxPathLength} characters");
        }

        string text = System.Text.Encoding.UTF8.GetString(name);
        joined = path.Length == 0 || text.Length == 0 ? path + text : $"{path}.{text}";
        return true;
    }

    private bool Fail(string code, string what, BtfTypeRecord record, string found)
    {
        _error = PatchDiagnostic.Error(code, $"A type in struct {_structName} {what}") with
        {
            FileOffset = _file.TypesAt + record.Offset,
            Found = found,
            Help = "The section .BTF is damaged or forged; choose the slots by kernel version instead",
        };
        return false;
    }
}
