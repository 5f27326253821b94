namespace RiscV.Isa;

/// <summary>The instructions of RV64IM, in the order of <see cref="IsaTable"/>; the names are the assembler's.</summary>
internal enum Op : byte
{
    Illegal,
    Lui, Auipc, Jal, Jalr,
    Beq, Bne, Blt, Bge, Bltu, Bgeu,
    Lb, Lh, Lw, Ld, Lbu, Lhu, Lwu,
    Sb, Sh, Sw, Sd,
    Addi, Slti, Sltiu, Xori, Ori, Andi, Slli, Srli, Srai,
    Add, Sub, Sll, Slt, Sltu, Xor, Srl, Sra, Or, And,
    Addiw, Slliw, Srliw, Sraiw,
    Addw, Subw, Sllw, Srlw, Sraw,
    Mul, Mulh, Mulhsu, Mulhu, Div, Divu, Rem, Remu,
    Mulw, Divw, Divuw, Remw, Remuw,
    Fence, FenceI, Ecall, Ebreak,
}

/// <summary>Where an instruction keeps its immediate, and so how it is decoded.</summary>
internal enum Format : byte
{
    /// <summary>Two sources, no immediate.</summary>
    R,

    /// <summary>Twelve bits at the top.</summary>
    I,

    /// <summary>Shift by an immediate of six bits (five where the pattern fixes the sixth).</summary>
    Shift,

    /// <summary>Twelve bits in two pieces: stores.</summary>
    S,

    /// <summary>Thirteen bits in four pieces, the lowest zero: branches.</summary>
    B,

    /// <summary>The upper twenty of 32 bits.</summary>
    U,

    /// <summary>Twenty-one bits in four pieces, the lowest zero: jal.</summary>
    J,

    /// <summary>No operands that matter.</summary>
    None,
}

/// <summary>A decoded instruction.</summary>
/// <param name="Op">What it does.</param>
/// <param name="Rd">Destination, 0 to 31.</param>
/// <param name="Rs1">First source.</param>
/// <param name="Rs2">Second source.</param>
/// <param name="Imm">The immediate, sign-extended.</param>
internal readonly record struct Instruction(Op Op, byte Rd, byte Rs1, byte Rs2, int Imm)
{
    /// <summary>
    /// Whether control may go elsewhere than to the next instruction, or that one may be another by then: such an instruction ends a block.
    /// </summary>
    public bool EndsBlock => Op is Op.Illegal or (>= Op.Jal and <= Op.Bgeu) or Op.FenceI or Op.Ecall or Op.Ebreak;

    /// <summary>Whether it may jump to an address it names, and leaves no return address.</summary>
    public bool IsGoto => Op is >= Op.Beq and <= Op.Bgeu || (Op == Op.Jal && Rd == 0);

    /// <summary>Which of the three registers it has; the others are bits of something else.</summary>
    public (bool Rd, bool Rs1, bool Rs2) Operands => (
        Op is (>= Op.Lui and <= Op.Jalr) or (>= Op.Lb and <= Op.Lwu) or (>= Op.Addi and <= Op.Remuw),
        Op is >= Op.Jalr and <= Op.Remuw,
        Op is (>= Op.Beq and <= Op.Bgeu) or (>= Op.Sb and <= Op.Sd) or (>= Op.Add and <= Op.And) or (>= Op.Addw and <= Op.Remuw));

    public bool IsLoad => Op is >= Op.Lb and <= Op.Lwu;

    public bool IsStore => Op is >= Op.Sb and <= Op.Sd;
}
