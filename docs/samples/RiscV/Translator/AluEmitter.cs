using Iced.Intel;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;
using GuestInstruction = RiscV.Isa.Instruction;
using HostInstruction = Iced.Intel.Instruction;

namespace RiscV.Translator;

/// <summary>
/// Integer arithmetic. A result is computed where it is wanted, if its guest register is in a host register and not needed as the second operand before; else in rax.
/// </summary>
internal static class AluEmitter
{
    public static void Emit(HostCode code, GuestInstruction instruction, ulong pc)
    {
        if (instruction.Rd == 0)
        {
            return; // nothing but a result, and nobody to have it
        }

        switch (instruction.Op)
        {
            case Op.Lui:
                code.Set(instruction.Rd, (ulong)instruction.Imm);
                break;
            case Op.Auipc:
                code.Set(instruction.Rd, pc + (ulong)instruction.Imm);
                break;
            case Op.Slti or Op.Sltiu or Op.Slt or Op.Sltu:
                EmitCompare(code, instruction);
                break;
            case Op.Addi:
                EmitAddImmediate(code, instruction);
                break;
            case Op.Sll or Op.Srl or Op.Sra or Op.Sllw or Op.Srlw or Op.Sraw:
                EmitShift(code, instruction);
                break;
            case >= Op.Xori and <= Op.Srai or >= Op.Addiw and <= Op.Sraiw:
                EmitImmediate(code, instruction);
                break;
            default:
                EmitRegister(code, instruction);
                break;
        }
    }

    private static bool IsWord(Op op) => op is >= Op.Addiw and <= Op.Sraw;

    private static void EmitAddImmediate(HostCode code, GuestInstruction i)
    {
        Register target = code.Map.HostOr(i.Rd, Register.RAX);
        code.LoadSum(target, i.Rs1, i.Imm);
        code.Store(i.Rd, target);
    }

    private static void EmitImmediate(HostCode code, GuestInstruction i)
    {
        Register target = code.Map.HostOr(i.Rd, Register.RAX);
        if (i is { Op: Op.Addiw, Imm: 0 })
        {
            code.Add32(Code.Movsxd_r64_rm32, target, i.Rs1); // sext.w
            code.Store(i.Rd, target);
            return;
        }

        Code operation = i.Op switch
        {
            Op.Xori => Code.Xor_rm64_imm32,
            Op.Ori => Code.Or_rm64_imm32,
            Op.Andi => Code.And_rm64_imm32,
            Op.Slli => Code.Shl_rm64_imm8,
            Op.Srli => Code.Shr_rm64_imm8,
            Op.Srai => Code.Sar_rm64_imm8,
            Op.Addiw => Code.Add_rm32_imm32,
            Op.Slliw => Code.Shl_rm32_imm8,
            Op.Srliw => Code.Shr_rm32_imm8,
            Op.Sraiw => Code.Sar_rm32_imm8,
            _ => throw new ArgumentOutOfRangeException(nameof(i)),
        };
        code.Load(target, i.Rs1);
        code.Add(operation, IsWord(i.Op) ? HostCode.Low(target) : target, i.Imm);
        Finish(code, i, target);
    }

    private static void EmitRegister(HostCode code, GuestInstruction i)
    {
        Code operation = i.Op switch
        {
            Op.Add => Code.Add_r64_rm64,
            Op.Sub => Code.Sub_r64_rm64,
            Op.Xor => Code.Xor_r64_rm64,
            Op.Or => Code.Or_r64_rm64,
            Op.And => Code.And_r64_rm64,
            Op.Addw => Code.Add_r32_rm32,
            Op.Subw => Code.Sub_r32_rm32,
            Op.Mul => Code.Imul_r64_rm64,
            Op.Mulw => Code.Imul_r32_rm32,
            _ => throw new ArgumentOutOfRangeException(nameof(i)),
        };
        if (i.Rs2 == i.Rd && i.Op is not (Op.Sub or Op.Subw))
        {
            i = i with { Rs1 = i.Rs2, Rs2 = i.Rs1 }; // the order does not matter: the one that is overwritten comes first
        }

        Register target = i.Rs2 == i.Rd && i.Rs1 != i.Rd ? Register.RAX : code.Map.HostOr(i.Rd, Register.RAX);
        if (i.Op == Op.Add && i.Rs1 != i.Rd && code.Map.IsPinned(i.Rs1) && code.Map.IsPinned(i.Rs2))
        {
            var sum = new MemoryOperand(code.Map.HostOr(i.Rs1, default), code.Map.HostOr(i.Rs2, default));
            code.Asm.AddInstruction(HostInstruction.Create(Code.Lea_r64_m, target, sum));
        }
        else
        {
            code.Load(target, i.Rs1);
            if (i.Op is >= Op.Addw and <= Op.Sraw or Op.Mulw)
            {
                code.Add32(operation, HostCode.Low(target), i.Rs2);
            }
            else
            {
                code.Add64(operation, target, i.Rs2);
            }
        }

        Finish(code, i, target);
    }

    /// <summary>Shift counts are taken modulo 64 or 32 by both processors.</summary>
    private static void EmitShift(HostCode code, GuestInstruction i)
    {
        Register target = code.Map.HostOr(i.Rd, Register.RAX);
        code.Load(Register.RCX, i.Rs2);
        code.Load(target, i.Rs1);
        Code operation = i.Op switch
        {
            Op.Sll => Code.Shl_rm64_CL,
            Op.Srl => Code.Shr_rm64_CL,
            Op.Sra => Code.Sar_rm64_CL,
            Op.Sllw => Code.Shl_rm32_CL,
            Op.Srlw => Code.Shr_rm32_CL,
            _ => Code.Sar_rm32_CL,
        };
        code.Add(operation, IsWord(i.Op) ? HostCode.Low(target) : target, Register.CL);
        Finish(code, i, target);
    }

    /// <summary>sltiu's immediate is sign-extended, then taken as unsigned; x86 does the same.</summary>
    private static void EmitCompare(HostCode code, GuestInstruction i)
    {
        if (i.Op is Op.Slti or Op.Sltiu)
        {
            Register first = code.Map.HostOr(i.Rs1, Register.RAX);
            code.Load(first, i.Rs1);
            code.Add(Code.Cmp_rm64_imm32, first, i.Imm);
        }
        else
        {
            code.Compare(i.Rs1, i.Rs2);
        }

        if (i.Op is Op.Slt or Op.Slti)
        {
            code.Asm.setl(al);
        }
        else
        {
            code.Asm.setb(al);
        }

        Register target = code.Map.HostOr(i.Rd, Register.RAX);
        code.Add(Code.Movzx_r32_rm8, HostCode.Low(target), Register.AL);
        code.Store(i.Rd, target);
    }

    private static void Finish(HostCode code, GuestInstruction i, Register target)
    {
        if (IsWord(i.Op) || i.Op == Op.Mulw)
        {
            code.Add(Code.Movsxd_r64_rm32, target, HostCode.Low(target));
        }

        code.Store(i.Rd, target);
    }
}
