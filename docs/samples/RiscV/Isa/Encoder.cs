namespace RiscV.Isa;

/// <summary>The way back: instructions into words. For the built-in program and the tests.</summary>
internal static class Encoder
{
    /// <summary>Encodes an instruction.</summary>
    /// <exception cref="ArgumentException">The immediate does not fit.</exception>
    public static uint Encode(Instruction instruction)
    {
        IsaRow row = IsaTable.Of(instruction.Op);
        uint imm = (uint)instruction.Imm;
        uint rd = (uint)instruction.Rd << 7;
        uint rs1 = (uint)instruction.Rs1 << 15;
        uint rs2 = (uint)instruction.Rs2 << 20;
        uint word = row.Match | row.Format switch
        {
            Format.R => rd | rs1 | rs2,
            Format.I or Format.Shift => rd | rs1 | imm << 20,
            Format.S => rs1 | rs2 | (imm & 0xfe0) << 20 | (imm & 0x1f) << 7,
            Format.B => rs1 | rs2 | (imm & 0x1000) << 19 | (imm & 0x7e0) << 20 | (imm & 0x1e) << 7 | (imm & 0x800) >> 4,
            Format.U => rd | (imm & 0xfffff000),
            Format.J => rd | (imm & 0x100000) << 11 | (imm & 0x7fe) << 20 | (imm & 0x800) << 9 | (imm & 0xff000),
            _ => 0,
        };

        // What does not come back the same way did not fit.
        return row.Format == Format.None || Decoder.Decode(word).Imm == instruction.Imm
            ? word
            : throw new ArgumentException($"{row.Name}: the immediate {instruction.Imm} does not fit", nameof(instruction));
    }
}
