using System.Buffers.Binary;
using System.Text;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Audit;

/// <summary>Arguments and results of a function, in registers.</summary>
/// <param name="Arguments">
/// Registers that its arguments take, of six, the address of a result in memory among them; what does not fit is on the stack.
/// </param>
/// <param name="Results">Registers its result takes: 0 for void, 1 (rax), 2 (rdx:rax).</param>
internal readonly record struct FunctionPrototype(int Arguments, int Results);

/// <summary>
/// The prototypes of functions, and of the function pointers in the structs of ops tables, out of a kernel's type information.
/// </summary>
internal sealed class BtfPrototypes
{
    private const int LargestInRegisters = 16;
    private const int MaxSteps = 32;

    private readonly Dictionary<string, FunctionPrototype?> _functions = [];
    private readonly Dictionary<string, FunctionPrototype> _members = [];
    private readonly BtfFile? _file;

    public BtfPrototypes(ElfImage elf)
    {
        if (!elf.TryGetSection(".BTF", out ElfSection? section) || !BtfFile.TryRead(elf.GetBytes(section), out _file, out _))
        {
            return; // without it nothing is known
        }

        for (uint id = 1; id < _file.TypeCount; id++)
        {
            _file.TryGetType(id, out BtfTypeRecord record);
            if (record.Kind == BtfKind.Function && TryName(record, out string name)
                && _file.TryGetType(record.SizeOrType, out BtfTypeRecord type) && type.Kind == BtfKind.FunctionPrototype)
            {
                FunctionPrototype prototype = Read(type);
                // two static functions of one name
                _functions[name] = _functions.TryGetValue(name, out FunctionPrototype? known) && known != prototype ? null : prototype;
            }
            else if (record.Kind == BtfKind.Struct && TryName(record, out name) && name.StartsWith("pv_", StringComparison.Ordinal)
                && name.EndsWith("_ops", StringComparison.Ordinal))
            {
                ReadMembers(record);
            }
        }
    }

    /// <summary>
    /// The prototype of a function by its name; <see langword="null"/> where none is known, or two functions of the name have two.
    /// </summary>
    public FunctionPrototype? OfFunction(string name) => _functions.GetValueOrDefault(name);

    /// <summary>The prototype of an operation, by the name of its member.</summary>
    public FunctionPrototype? OfMember(string name) => _members.TryGetValue(name, out FunctionPrototype found) ? found : null;

    private void ReadMembers(BtfTypeRecord record)
    {
        for (int i = 0; i < record.Count; i++)
        {
            ReadOnlySpan<byte> member = _file!.Types.Slice(record.Offset + BtfTypeRecord.HeaderSize + (12 * i), 12);
            uint nameAt = BinaryPrimitives.ReadUInt32LittleEndian(member);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(member[4..]);
            if (_file.TryGetName(nameAt, out ReadOnlySpan<byte> name) && TryResolve(type, out BtfTypeRecord pointer)
                && pointer.Kind == BtfKind.Pointer
                && TryResolve(pointer.SizeOrType, out BtfTypeRecord target) && target.Kind == BtfKind.FunctionPrototype)
            {
                _members[Encoding.UTF8.GetString(name)] = Read(target);
            }
        }
    }

    private FunctionPrototype Read(BtfTypeRecord prototype)
    {
        int arguments = 0;
        for (int i = 0; i < prototype.Count; i++)
        {
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(
                _file!.Types.Slice(prototype.Offset + BtfTypeRecord.HeaderSize + (8 * i) + 4, 4));
            long size = type == 0 ? 0 : SizeOf(type); // variable arguments are an argument without a type
            arguments += size > LargestInRegisters ? 0 : (int)((size + 7) / 8);
        }

        long result = prototype.SizeOrType == 0 || (TryResolve(prototype.SizeOrType, out BtfTypeRecord type0) && type0.Kind == BtfKind.Void)
            ? 0 : SizeOf(prototype.SizeOrType);
        arguments += result > LargestInRegisters ? 1 : 0; // the caller passes where to put it, before all arguments, and gets that in rax
        return new FunctionPrototype(Math.Min(arguments, 6), result == 0 ? 0 : result is > 8 and <= LargestInRegisters ? 2 : 1);
    }

    private long SizeOf(uint type) => !TryResolve(type, out BtfTypeRecord record) ? 8 : record.Kind switch
    {
        BtfKind.Pointer => 8,
        BtfKind.Struct or BtfKind.Union or BtfKind.Int or BtfKind.Enum or BtfKind.Enum64 or BtfKind.Float => Math.Max(record.SizeOrType, 1),
        _ => 8,
    };

    private bool TryResolve(uint id, out BtfTypeRecord record)
    {
        record = default;
        for (int i = 0; i < MaxSteps; i++)
        {
            if (!_file!.TryGetType(id, out record))
            {
                return false;
            }

            if (id == 0 || !record.IsAlias)
            {
                return true;
            }

            id = record.SizeOrType;
        }

        return false;
    }

    private bool TryName(BtfTypeRecord record, out string name)
    {
        bool found = _file!.TryGetName(record.NameOffset, out ReadOnlySpan<byte> bytes) && !bytes.IsEmpty;
        name = found ? Encoding.UTF8.GetString(bytes) : "";
        return found;
    }
}
