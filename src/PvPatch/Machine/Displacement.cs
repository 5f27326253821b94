using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace PvPatch.Machine;

/// <summary>
/// The 32-bit distance from the end of an instruction to what it names: the one place where it is made and its range is checked.
/// </summary>
internal static class Displacement
{
    /// <summary>The displacement of an instruction.</summary>
    /// <param name="end">Run address of the first byte behind the instruction.</param>
    /// <param name="target">Run address that it names, whatever its value.</param>
    /// <param name="bitness">32 (distances wrap at 4 GiB, so all is in reach) or 64.</param>
    /// <param name="displacement">The value.</param>
    /// <returns>Whether the target is in reach: within 2 GiB of the instruction's end.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool TryGet(VirtualAddress end, VirtualAddress target, int bitness, out int displacement)
    {
        long distance = target - end;
        displacement = unchecked((int)distance);
        return displacement == distance || bitness == 32;
    }

    /// <summary>Fills in all fields of a body.</summary>
    /// <param name="body">The body, its fields zero.</param>
    /// <param name="fixups">Its fields.</param>
    /// <param name="address">Run address of the body's first byte.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>Whether everything it refers to is in reach; where not, the body holds nothing useful.</returns>
    public static bool TryFill(Span<byte> body, ReadOnlySpan<CodeFixup> fixups, VirtualAddress address, int bitness)
    {
        foreach (ref readonly CodeFixup fixup in fixups)
        {
            if (!TryGet(address + fixup.InstructionEnd, fixup.Target, bitness, out int displacement))
            {
                return false;
            }

            BinaryPrimitives.WriteInt32LittleEndian(body[fixup.Offset..], displacement);
        }

        return true;
    }
}

/// <summary>
/// A 32-bit field of a body that depends on where the body is put: the distance from the end of its instruction to an address (the
/// displacement of a call, a jump or a RIP-relative operand).
/// </summary>
/// <param name="Offset">Where the field begins, in bytes from the body's start.</param>
/// <param name="InstructionEnd">Where its instruction ends, in bytes from the body's start.</param>
/// <param name="Target">The run address referred to.</param>
internal readonly record struct CodeFixup(byte Offset, byte InstructionEnd, VirtualAddress Target)
{
    /// <summary>The field's value at a site.</summary>
    /// <param name="site">Run address of the body's first byte.</param>
    /// <param name="bitness">32 (distances wrap at 4 GiB, so all is in reach) or 64.</param>
    /// <param name="displacement">The value.</param>
    /// <returns>Whether the target is in reach: within 2 GiB of the instruction's end.</returns>
    public bool TryGetDisplacement(VirtualAddress site, int bitness, out int displacement) =>
        Displacement.TryGet(site + InstructionEnd, Target, bitness, out displacement);
}
