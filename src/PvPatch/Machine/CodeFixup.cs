namespace PvPatch.Machine;

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
