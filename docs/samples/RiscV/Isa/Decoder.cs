namespace RiscV.Isa;

/// <summary>Turns instruction words into instructions, by <see cref="IsaTable"/>.</summary>
internal static class Decoder
{
    // The rows of each major opcode (the low seven bits), so that decoding looks at a handful of them.
    private static readonly IsaRow[][] s_rows =
        [.. Enumerable.Range(0, 128).Select(static opcode => IsaTable.Rows.Where(r => (r.Match & 0x7f) == opcode).ToArray())];

    /// <summary>Decodes a word; <see cref="Op.Illegal"/> where it is no instruction of RV64IM with fence.i.</summary>
    public static Instruction Decode(uint word)
    {
        foreach (IsaRow row in s_rows[word & 0x7f])
        {
            if ((word & row.Mask) == row.Match)
            {
                return new Instruction(row.Op, Field(word, 7), Field(word, 15), Field(word, 20), Immediate(word, row));
            }
        }

        return default;
    }

    private static byte Field(uint word, int shift) => (byte)(word >> shift & 31);

    // The sign is bit 31 in every format: an arithmetic shift of the whole word puts it everywhere it belongs.
    private static int Immediate(uint word, IsaRow row) => row.Format switch
    {
        Format.I => (int)word >> 20,
        Format.Shift => (int)(word & ~row.Mask) >> 20 & 63,
        Format.S => (int)(word & 0xfe000000) >> 20 | (int)(word >> 7 & 0x1f),
        Format.B => (int)(word & 0x80000000) >> 19 | (int)(word << 4 & 0x800) | (int)(word >> 20 & 0x7e0) | (int)(word >> 7 & 0x1e),
        Format.U => (int)(word & 0xfffff000),
        Format.J => (int)(word & 0x80000000) >> 11 | (int)(word & 0xff000) | (int)(word >> 9 & 0x800) | (int)(word >> 20 & 0x7fe),
        _ => 0,
    };
}
