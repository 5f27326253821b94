using Iced.Intel;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;
using GuestInstruction = RiscV.Isa.Instruction;

namespace RiscV.Translator;

/// <summary>Integer arithmetic: first operand in rax, second in rcx, result in rax.</summary>
internal static class AluEmitter
{
    public static void Emit(Assembler a, GuestInstruction instruction, ulong pc)
    {
        if (instruction.Rd == 0)
        {
            return; // nothing but a result, and nobody to have it
        }

        switch (instruction.Op)
        {
            case Op.Lui:
                a.mov(rax, instruction.Imm);
                break;
            case Op.Auipc:
                a.mov(rax, pc + (ulong)instruction.Imm);
                break;
            case >= Op.Addi and <= Op.Srai or >= Op.Addiw and <= Op.Sraiw:
                GuestRegisters.Load(a, rax, instruction.Rs1);
                EmitImmediate(a, instruction.Op, instruction.Imm);
                break;
            default:
                GuestRegisters.Load(a, rax, instruction.Rs1);
                GuestRegisters.Load(a, rcx, instruction.Rs2);
                EmitRegister(a, instruction.Op);
                break;
        }

        if (instruction.Op is >= Op.Addiw and <= Op.Sraw)
        {
            a.movsxd(rax, eax);
        }

        GuestRegisters.Store(a, instruction.Rd, rax);
    }

    private static void EmitImmediate(Assembler a, Op op, int imm)
    {
        switch (op)
        {
            case Op.Addi:
                a.add(rax, imm);
                break;
            case Op.Slti:
                a.cmp(rax, imm);
                a.setl(al);
                a.movzx(eax, al);
                break;
            case Op.Sltiu: // the immediate is sign-extended, then taken as unsigned; x86 does the same
                a.cmp(rax, imm);
                a.setb(al);
                a.movzx(eax, al);
                break;
            case Op.Xori:
                a.xor(rax, imm);
                break;
            case Op.Ori:
                a.or(rax, imm);
                break;
            case Op.Andi:
                a.and(rax, imm);
                break;
            case Op.Slli:
                a.shl(rax, (byte)imm);
                break;
            case Op.Srli:
                a.shr(rax, (byte)imm);
                break;
            case Op.Srai:
                a.sar(rax, (byte)imm);
                break;
            case Op.Addiw:
                a.add(eax, imm);
                break;
            case Op.Slliw:
                a.shl(eax, (byte)imm);
                break;
            case Op.Srliw:
                a.shr(eax, (byte)imm);
                break;
            case Op.Sraiw:
                a.sar(eax, (byte)imm);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(op));
        }
    }

    /// <summary>Shift counts are taken modulo 64 or 32 by both processors.</summary>
    private static void EmitRegister(Assembler a, Op op)
    {
        switch (op)
        {
            case Op.Add:
                a.add(rax, rcx);
                break;
            case Op.Sub:
                a.sub(rax, rcx);
                break;
            case Op.Sll:
                a.shl(rax, cl);
                break;
            case Op.Slt:
                a.cmp(rax, rcx);
                a.setl(al);
                a.movzx(eax, al);
                break;
            case Op.Sltu:
                a.cmp(rax, rcx);
                a.setb(al);
                a.movzx(eax, al);
                break;
            case Op.Xor:
                a.xor(rax, rcx);
                break;
            case Op.Srl:
                a.shr(rax, cl);
                break;
            case Op.Sra:
                a.sar(rax, cl);
                break;
            case Op.Or:
                a.or(rax, rcx);
                break;
            case Op.And:
                a.and(rax, rcx);
                break;
            case Op.Addw:
                a.add(eax, ecx);
                break;
            case Op.Subw:
                a.sub(eax, ecx);
                break;
            case Op.Sllw:
                a.shl(eax, cl);
                break;
            case Op.Srlw:
                a.shr(eax, cl);
                break;
            case Op.Sraw:
                a.sar(eax, cl);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(op));
        }
    }
}
