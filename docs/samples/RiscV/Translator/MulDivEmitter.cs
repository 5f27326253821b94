using Iced.Intel;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;
using GuestInstruction = RiscV.Isa.Instruction;

namespace RiscV.Translator;

/// <summary>
/// The M extension: operands in rax and rcx, result in rax. x86 traps on a division by zero and on the one quotient that overflows, RISC-V
/// gives a number for both: by zero all ones and the dividend, else the dividend and zero.
/// </summary>
internal static class MulDivEmitter
{
    public static void Emit(HostCode code, GuestInstruction instruction)
    {
        if (instruction.Rd == 0)
        {
            return;
        }

        if (instruction.Op is Op.Mul or Op.Mulw)
        {
            AluEmitter.Emit(code, instruction, pc: 0); // an operation like any other: x86 has it with two operands
            return;
        }

        Assembler a = code.Asm;
        code.Read(Register.RCX, instruction.Rs2);
        code.Read(Register.RAX, instruction.Rs1);
        code.Claim(Register.RAX, Register.RDX);
        switch (instruction.Op)
        {
            case Op.Mulh:
                a.imul(rcx);
                a.mov(rax, rdx);
                break;
            case Op.Mulhu:
                a.mul(rcx);
                a.mov(rax, rdx);
                break;
            case Op.Mulhsu:
                EmitMulhsu(code, instruction.Rs1);
                break;
            case Op.Div or Op.Rem or Op.Divw or Op.Remw:
                EmitSigned(a, remainder: instruction.Op is Op.Rem or Op.Remw, wide: instruction.Op is Op.Div or Op.Rem);
                break;
            default:
                EmitUnsigned(a, remainder: instruction.Op is Op.Remu or Op.Remuw, wide: instruction.Op is Op.Divu or Op.Remu);
                break;
        }

        if (instruction.Op >= Op.Mulw)
        {
            a.movsxd(rax, eax);
        }

        code.Write(instruction.Rd, Register.RAX, isWord: instruction.Op >= Op.Mulw);
    }

    /// <summary>Signed by unsigned: as both unsigned, minus the second operand in the upper half where the first is negative.</summary>
    private static void EmitMulhsu(HostCode code, int first)
    {
        Assembler a = code.Asm;
        Register negative = code.Read(first); // rsi, rdi or its own register: rax and rdx are claimed
        a.mul(rcx);
        a.xor(eax, eax);
        code.Add(Code.Test_rm64_r64, negative, negative);
        a.cmovns(rcx, rax);
        a.mov(rax, rdx);
        a.sub(rax, rcx);
    }

    private static void EmitSigned(Assembler a, bool remainder, bool wide)
    {
        Label notZero = a.CreateLabel();
        Label divide = a.CreateLabel();
        Label done = a.CreateLabel();
        EmitZeroTest(a, remainder, wide, notZero, done);

        // By minus one: the quotient is the negated dividend, which for the smallest number is that number again.
        if (wide)
        {
            a.cmp(rcx, -1);
        }
        else
        {
            a.cmp(ecx, -1);
        }

        a.jne(divide);
        if (remainder)
        {
            a.xor(eax, eax);
        }
        else
        {
            a.neg(rax); // its lower half is the negated lower half
        }

        a.jmp(done);
        a.Label(ref divide);
        if (wide)
        {
            a.cqo();
            a.idiv(rcx);
        }
        else
        {
            a.cdq();
            a.idiv(ecx);
        }

        EmitDone(a, remainder, done);
    }

    private static void EmitUnsigned(Assembler a, bool remainder, bool wide)
    {
        Label divide = a.CreateLabel();
        Label done = a.CreateLabel();
        EmitZeroTest(a, remainder, wide, divide, done);
        a.xor(edx, edx);
        if (wide)
        {
            a.div(rcx);
        }
        else
        {
            a.div(ecx);
        }

        EmitDone(a, remainder, done);
    }

    private static void EmitZeroTest(Assembler a, bool remainder, bool wide, Label notZero, Label done)
    {
        if (wide)
        {
            a.test(rcx, rcx);
        }
        else
        {
            a.test(ecx, ecx);
        }

        a.jnz(notZero);
        if (!remainder)
        {
            a.mov(rax, -1);
        }

        a.jmp(done);
        a.Label(ref notZero);
    }

    private static void EmitDone(Assembler a, bool remainder, Label done)
    {
        if (remainder)
        {
            a.mov(rax, rdx);
        }

        a.Label(ref done);
    }
}
