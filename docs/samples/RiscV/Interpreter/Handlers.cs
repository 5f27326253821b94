using RiscV.Host;
using RiscV.Isa;

namespace RiscV.Interpreter;

/// <summary>Which function executes which instruction.</summary>
internal static unsafe class Handlers
{
    /// <summary>The handler of an instruction.</summary>
    public static delegate*<CpuState*, Decoded*, ulong> Of(Op op)
    {
        return op switch
        {
            Op.Illegal => &ControlHandlers.Illegal,
            Op.Lui => &AluHandlers.Lui,
            Op.Auipc => &AluHandlers.Auipc,
            Op.Jal => &ControlHandlers.Jal,
            Op.Jalr => &ControlHandlers.Jalr,
            Op.Beq => &ControlHandlers.Beq,
            Op.Bne => &ControlHandlers.Bne,
            Op.Blt => &ControlHandlers.Blt,
            Op.Bge => &ControlHandlers.Bge,
            Op.Bltu => &ControlHandlers.Bltu,
            Op.Bgeu => &ControlHandlers.Bgeu,
            Op.Lb => &MemoryHandlers.Lb,
            Op.Lh => &MemoryHandlers.Lh,
            Op.Lw => &MemoryHandlers.Lw,
            Op.Ld => &MemoryHandlers.Ld,
            Op.Lbu => &MemoryHandlers.Lbu,
            Op.Lhu => &MemoryHandlers.Lhu,
            Op.Lwu => &MemoryHandlers.Lwu,
            Op.Sb => &MemoryHandlers.Sb,
            Op.Sh => &MemoryHandlers.Sh,
            Op.Sw => &MemoryHandlers.Sw,
            Op.Sd => &MemoryHandlers.Sd,
            Op.Addi => &AluHandlers.Addi,
            Op.Slti => &AluHandlers.Slti,
            Op.Sltiu => &AluHandlers.Sltiu,
            Op.Xori => &AluHandlers.Xori,
            Op.Ori => &AluHandlers.Ori,
            Op.Andi => &AluHandlers.Andi,
            Op.Slli => &AluHandlers.Slli,
            Op.Srli => &AluHandlers.Srli,
            Op.Srai => &AluHandlers.Srai,
            Op.Add => &AluHandlers.Add,
            Op.Sub => &AluHandlers.Sub,
            Op.Sll => &AluHandlers.Sll,
            Op.Slt => &AluHandlers.Slt,
            Op.Sltu => &AluHandlers.Sltu,
            Op.Xor => &AluHandlers.Xor,
            Op.Srl => &AluHandlers.Srl,
            Op.Sra => &AluHandlers.Sra,
            Op.Or => &AluHandlers.Or,
            Op.And => &AluHandlers.And,
            Op.Addiw => &AluHandlers.Addiw,
            Op.Slliw => &AluHandlers.Slliw,
            Op.Srliw => &AluHandlers.Srliw,
            Op.Sraiw => &AluHandlers.Sraiw,
            Op.Addw => &AluHandlers.Addw,
            Op.Subw => &AluHandlers.Subw,
            Op.Sllw => &AluHandlers.Sllw,
            Op.Srlw => &AluHandlers.Srlw,
            Op.Sraw => &AluHandlers.Sraw,
            Op.Mul => &MulDivHandlers.Mul,
            Op.Mulh => &MulDivHandlers.Mulh,
            Op.Mulhsu => &MulDivHandlers.Mulhsu,
            Op.Mulhu => &MulDivHandlers.Mulhu,
            Op.Div => &MulDivHandlers.Div,
            Op.Divu => &MulDivHandlers.Divu,
            Op.Rem => &MulDivHandlers.Rem,
            Op.Remu => &MulDivHandlers.Remu,
            Op.Mulw => &MulDivHandlers.Mulw,
            Op.Divw => &MulDivHandlers.Divw,
            Op.Divuw => &MulDivHandlers.Divuw,
            Op.Remw => &MulDivHandlers.Remw,
            Op.Remuw => &MulDivHandlers.Remuw,
            Op.Fence => &ControlHandlers.Fence,
            Op.FenceI => &ControlHandlers.FenceI,
            Op.Ecall => &ControlHandlers.Ecall,
            Op.Ebreak => &ControlHandlers.Ebreak,
            _ => throw new ArgumentOutOfRangeException(nameof(op)),
        };
    }
}
