using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>
/// One instruction whose immediate or displacement follows a value: its bytes with the field zero, and where the field is. Pure, for images
/// and running code.
/// </summary>
/// <remarks>
/// <code>
/// instruction                bytes                              the field
/// mov rax,imm64              48 b8 ff ff ff ff ff ff ff ff      8 bytes: any value
/// mov eax,imm32              b8 ff ff ff ff                     4 bytes: signed or unsigned
/// cmp rdi,imm32              48 81 ff ff ff ff ff               4 bytes: signed, as the processor extends it
/// mov eax,[rdi+disp32]       8b 87 ff ff ff ff                  4 bytes: signed
/// add edi,imm8               83 c7 ff                           1 byte: signed
/// </code>
/// </remarks>
internal sealed class ConstantCode
{
    private readonly SiteBytes _bytes; // the field zero
    private readonly int _field;
    private readonly int _size;
    private readonly bool _isExtended;

    private ConstantCode(SiteBytes bytes, int length, int field, int size, bool isExtended)
    {
        _bytes = bytes;
        Length = length;
        _field = field;
        _size = size;
        _isExtended = isExtended;
    }

    /// <summary>Length of the instruction in bytes.</summary>
    public int Length { get; }

    /// <summary>Smallest value the field can have.</summary>
    public long Least => _size == 8 ? long.MinValue : -1L << (8 * _size) - 1;

    /// <summary>Greatest value the field can have.</summary>
    public long Most => _size == 8 ? long.MaxValue : (1L << (8 * _size) - (_isExtended ? 1 : 0)) - 1;

    /// <summary>Finds the field of an instruction.</summary>
    /// <param name="instruction">The instruction. The value that it has in the field decides nothing but the field's width.</param>
    /// <param name="displacement">Whether the displacement is meant where there is an immediate too.</param>
    /// <param name="code">The instruction's code.</param>
    /// <param name="error">Why it has no such field.</param>
    /// <returns>Whether it has one.</returns>
    public static bool TryCreate(
        in Instruction instruction, bool displacement, [NotNullWhen(true)] out ConstantCode? code, [NotNullWhen(false)] out string? error)
    {
        code = null;
        var writer = new ByteWriter(SiteBytes.LongestInstruction);
        var encoder = Encoder.Create(64, writer);
        if (instruction.IsIPRelativeMemoryOperand || BodyBuilder.IsNearBranch(instruction)
            || !encoder.TryEncode(instruction, 0, out uint length, out string? message))
        {
            error = "an instruction that depends on its address, or can't be encoded, has no field to change";
            return false;
        }

        ConstantOffsets offsets = encoder.GetConstantOffsets();
        bool isImmediate = offsets.HasImmediate && !displacement;
        if (offsets.HasImmediate2 || !(isImmediate || offsets.HasDisplacement))
        {
            error = displacement ? "the instruction has no displacement" : "the instruction has no immediate or displacement, or has two";
            return false;
        }

        if (!isImmediate && offsets.DisplacementSize == 1 && instruction.OpCode.Encoding is EncodingKind.EVEX or EncodingKind.MVEX)
        {
            error = "a displacement of one byte is counted in operand sizes there: one of four bytes is as it says, "
                + "which a number that is no multiple of the operand's size gets";
            return false;
        }

        error = null;
        int field = isImmediate ? offsets.ImmediateOffset : offsets.DisplacementOffset;
        int size = isImmediate ? offsets.ImmediateSize : offsets.DisplacementSize;
        byte[] bytes = writer.ToArray();
        bytes.AsSpan(field, size).Clear();
        bool isExtended = !isImmediate || Enumerable.Range(0, instruction.OpCount).Select(instruction.GetOpKind).Any(static k =>
            k is OpKind.Immediate8to16 or OpKind.Immediate8to32 or OpKind.Immediate8to64 or OpKind.Immediate32to64);
        code = new ConstantCode(SiteBytes.From(bytes), (int)length, field, size, isExtended);
        return true;
    }

    /// <summary>Whether the field can have a value.</summary>
    public bool Fits(long value) => value >= Least && value <= Most;

    /// <summary>The instruction with a value that fits.</summary>
    public SiteBytes With(long value)
    {
        Span<byte> bytes = stackalloc byte[SiteBytes.MaxLength];
        Span<byte> field = stackalloc byte[sizeof(long)];
        _bytes.CopyTo(bytes, SiteBytes.MaxLength);
        BinaryPrimitives.WriteInt64LittleEndian(field, value);
        field[.._size].CopyTo(bytes[_field..]);
        return SiteBytes.From(bytes);
    }
}
