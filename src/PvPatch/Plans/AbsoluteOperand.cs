using System.Buffers.Binary;

namespace PvPatch.Plans;

/// <summary>
/// Finds the absolute address in the original bytes of a site: an indirect call or jump through a fixed address, which KASLR's
/// relocations change before the kernel patches the site. Calls relative to the instruction pointer stay as they are.
/// </summary>
internal static class AbsoluteOperand
{
    /// <summary>Where the four bytes are, or -1.</summary>
    /// <remarks>
    /// 64-bit: <c>ff 14 25 abs32</c> and <c>ff 24 25 abs32</c> (call and jmp [disp32], 2.6.30 to 5.10); 32-bit: <c>ff 15 abs32</c> and
    /// <c>ff 25 abs32</c>. Older sites push registers first (50..57) and have a cs prefix (2e).
    /// </remarks>
    public static int Find(ReadOnlySpan<byte> original, int bitness)
    {
        int at = 0;
        while (at < original.Length && original[at] is (>= 0x50 and <= 0x57) or 0x2e)
        {
            at++;
        }

        ReadOnlySpan<byte> code = original[at..];
        if (bitness == 64)
        {
            return code.Length >= 7 && code[0] == 0xff && code[1] is 0x14 or 0x24 && code[2] == 0x25 ? at + 3 : -1;
        }

        return code.Length >= 6 && code[0] == 0xff && code[1] is 0x15 or 0x25 ? at + 2 : -1;
    }

    /// <summary>Adds the slide to the address in original bytes, where they have one.</summary>
    public static void Relocate(Span<byte> original, int bitness, long slide)
    {
        int at = Find(original, bitness);
        if (at >= 0)
        {
            Span<byte> operand = original.Slice(at, 4);
            BinaryPrimitives.WriteUInt32LittleEndian(operand, unchecked(BinaryPrimitives.ReadUInt32LittleEndian(operand) + (uint)slide));
        }
    }
}
