using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// Finished code taken to another place: branches and RIP-relative operands that leave it go on leading where they led, those within it
/// move along. No instruction changes its length. Pure.
/// </summary>
/// <remarks>
/// <code>
/// at 0x2000   e8 fb 0f 00 00   call 0x3000        at 0x1000   e8 fb 1f 00 00   call 0x3000
///             74 01            je 0x2008                      74 01            je 0x1008
///             90               nop                            90               nop
/// </code>
/// </remarks>
internal static class MovedCode
{
    /// <summary>Moves code.</summary>
    /// <param name="code">The code, whole instructions.</param>
    /// <param name="from">Run address of its first byte.</param>
    /// <param name="to">Run address of where it goes.</param>
    /// <param name="bitness">32 (distances wrap, so that all is in reach) or 64.</param>
    /// <param name="moved">The code there.</param>
    /// <param name="at">Offset of the first instruction that can't be moved; -1 where all can.</param>
    /// <returns>Whether all decodes to the code's end, and all it refers to is in reach of the instruction as it is.</returns>
    public static bool TryMove(
        ReadOnlySpan<byte> code, VirtualAddress from, VirtualAddress to, int bitness, [NotNullWhen(true)] out byte[]? moved, out int at)
    {
        byte[] bytes = code.ToArray();
        var decoder = Decoder.Create(bitness, code.ToArray(), from.Value);
        long distance = from - to;
        moved = null;
        for (at = 0; at < bytes.Length;)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                return false;
            }

            ConstantOffsets offsets = decoder.GetConstantOffsets(instruction);
            if (BodyBuilder.IsNearBranch(instruction) && Leaves(instruction.NearBranchTarget, (ulong)bytes.Length + 1)
                && !TryAdd(bytes.AsSpan(at + offsets.ImmediateOffset, offsets.ImmediateSize)))
            {
                return false;
            }

            if (instruction.IsIPRelativeMemoryOperand && Leaves(instruction.IPRelativeMemoryAddress, (ulong)bytes.Length)
                && !TryAdd(bytes.AsSpan(at + offsets.DisplacementOffset, offsets.DisplacementSize)))
            {
                return false;
            }

            at += instruction.Length;
        }

        moved = bytes;
        at = -1;
        return true;

        // A branch to its very end is within: it comes out behind the code, wherever that is. Data that lies there is not the code's.
        bool Leaves(ulong target, ulong length) => target - from.Value >= length;

        bool TryAdd(Span<byte> field)
        {
            if (field.Length != sizeof(int))
            {
                return field.Length == 1 && distance == 0; // a short branch reaches no other place
            }

            long value = BinaryPrimitives.ReadInt32LittleEndian(field) + distance;
            BinaryPrimitives.WriteInt32LittleEndian(field, unchecked((int)value));
            return value == (int)value || bitness == 32;
        }
    }
}
