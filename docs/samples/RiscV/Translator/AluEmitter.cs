using Iced.Intel;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;
using GuestInstruction = RiscV.Isa.Instruction;

namespace RiscV.Translator;

/// <summary>Integer arithmetic. A word's result is sign-extended, but where it is known to be so already.</summary>
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
                code.WriteConstant(instruction.Rd, (ulong)instruction.Imm);
                break;
            case Op.Auipc:
                code.WriteConstant(instruction.Rd, pc + (ulong)instruction.Imm);
                break;
            case Op.Addi when instruction.Rs1 == 0:
                code.WriteConstant(instruction.Rd, (ulong)instruction.Imm);
                break;
            case Op.Addi:
                EmitAddImmediate(code, instruction);
                break;
            case Op.Addiw when instruction.Imm == 0:
                EmitExtend(code, instruction);
                break;
            case Op.Slti or Op.Sltiu or Op.Slt or Op.Sltu:
                EmitCompare(code, instruction);
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

    /// <summary>
    /// An index into an array, which takes two guest instructions, in one: <c>slli rd, rs, 1 to 3; add rd, rd, other</c>. Whether the two
    /// are such a pair.
    /// </summary>
    public static bool TryEmitIndex(HostCode code, GuestInstruction shift, GuestInstruction add)
    {
        int rd = shift.Rd;
        int other = add.Rs1 == rd ? add.Rs2 : add.Rs1;
        if (shift.Op != Op.Slli || shift.Imm is < 1 or > 3 || add.Op != Op.Add || add.Rd != rd || rd == 0
            || (add.Rs1 != rd && add.Rs2 != rd) || other == rd || other == 0)
        {
            return false;
        }

        Register index = code.Read(shift.Rs1);
        Register first = code.Read(other);
        Register target = code.Target(rd, first: -1);
        code.AddSum(target, first, index, 1 << shift.Imm);
        code.Write(rd, target);
        return true;
    }

    private static bool IsWord(Op op) => op is (>= Op.Addiw and <= Op.Sraw) or Op.Mulw;

    private static void EmitAddImmediate(HostCode code, GuestInstruction i)
    {
        bool found = code.TryFind(i.Rs1, out Register source);
        Register target = code.Target(i.Rd, i.Rs1);
        if (found && source != target && i.Imm != 0)
        {
            code.AddSum(target, source, i.Imm);
        }
        else
        {
            code.Read(target, i.Rs1);
            if (i.Imm != 0)
            {
                code.AddConstant(Code.Add_rm64_imm32, target, i.Imm);
            }
        }

        code.Write(i.Rd, target, i.Imm == 0 && code.IsWord(i.Rs1));
    }

    /// <summary>sext.w.</summary>
    private static void EmitExtend(HostCode code, GuestInstruction i)
    {
        _ = code.TryFind(i.Rs1, out _);
        Register target = code.Target(i.Rd, i.Rs1);
        if (code.IsWord(i.Rs1))
        {
            code.Read(target, i.Rs1);
        }
        else
        {
            code.Add(Code.Movsxd_r64_rm32, target, i.Rs1, low: true);
        }

        code.Write(i.Rd, target, isWord: true);
    }

    private static void EmitImmediate(HostCode code, GuestInstruction i)
    {
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
        Register target = code.Target(i.Rd, i.Rs1);
        code.Read(target, i.Rs1);
        code.AddConstant(operation, IsWord(i.Op) ? HostCode.Low(target) : target, i.Imm);

        // A word that was shifted right is not negative, and has a zero upper half by itself. A small mask leaves a small number.
        bool isWord = i switch
        {
            { Op: Op.Srliw, Imm: > 0 } or { Op: Op.Andi, Imm: >= 0 } or { Op: Op.Srli, Imm: > 32 } => true,
            { Op: Op.Andi or Op.Ori or Op.Xori or Op.Srai } => code.IsWord(i.Rs1),
            _ => false,
        };
        Finish(code, i, target, isWord);
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

        bool found = code.TryFind(i.Rs1, out Register first) & code.TryFind(i.Rs2, out Register second);
        Register target = i.Rd == i.Rs2 && i.Rd != i.Rs1 ? Register.RCX : code.Target(i.Rd, i.Rs1); // rcx: rd = x - rd
        bool isWord = i.Op is Op.Xor or Op.Or or Op.And && code.IsWord(i.Rs1) && code.IsWord(i.Rs2);
        if (found && i.Op == Op.Add && first != target)
        {
            code.AddSum(target, first, second, 1);
        }
        else
        {
            code.Read(target, i.Rs1);
            code.Add(operation, IsWord(i.Op) ? HostCode.Low(target) : target, i.Rs2, low: IsWord(i.Op));
        }

        Finish(code, i, target, isWord);
    }

    /// <summary>Shift counts are taken modulo 64 or 32 by both processors.</summary>
    private static void EmitShift(HostCode code, GuestInstruction i)
    {
        code.Read(Register.RCX, i.Rs2);
        Register target = code.Target(i.Rd, i.Rs1);
        Code operation = i.Op switch
        {
            Op.Sll => Code.Shl_rm64_CL,
            Op.Srl => Code.Shr_rm64_CL,
            Op.Sra => Code.Sar_rm64_CL,
            Op.Sllw => Code.Shl_rm32_CL,
            Op.Srlw => Code.Shr_rm32_CL,
            _ => Code.Sar_rm32_CL,
        };
        code.Read(target, i.Rs1);
        code.Add(operation, IsWord(i.Op) ? HostCode.Low(target) : target, Register.CL);
        Finish(code, i, target, isWord: false);
    }

    /// <summary>sltiu's immediate is sign-extended, then taken as unsigned; x86 does the same.</summary>
    private static void EmitCompare(HostCode code, GuestInstruction i)
    {
        if (i.Op is Op.Slti or Op.Sltiu)
        {
            code.AddConstant(Code.Cmp_rm64_imm32, code.Read(i.Rs1), i.Imm);
        }
        else
        {
            code.Compare(i.Rs1, i.Rs2);
        }

        if (i.Op is Op.Slt or Op.Slti)
        {
            code.Asm.setl(cl);
        }
        else
        {
            code.Asm.setb(cl);
        }

        Register target = code.Target(i.Rd, first: -1);
        code.Add(Code.Movzx_r32_rm8, HostCode.Low(target), Register.CL);
        code.Write(i.Rd, target, isWord: true);
    }

    /// <summary>Writes a result. Where a word's upper half is not what it should be, it is made so.</summary>
    private static void Finish(HostCode code, GuestInstruction i, Register target, bool isWord)
    {
        if (IsWord(i.Op) && !isWord)
        {
            code.Add(Code.Movsxd_r64_rm32, target, HostCode.Low(target));
            isWord = true;
        }

        if (target == Register.RCX)
        {
            Register copy = code.Target(i.Rd, first: -1);
            code.Move(copy, target);
            target = copy;
        }

        code.Write(i.Rd, target, isWord);
    }
}
