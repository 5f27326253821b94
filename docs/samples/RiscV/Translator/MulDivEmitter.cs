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
    public static void Emit(Assembler a, GuestInstruction instruction)
    {
        if (instruction.Rd == 0)
        {
            return;
        }

        GuestRegisters.Load(a, rax, instruction.Rs1);
        GuestRegisters.Load(a, rcx, instruction.Rs2);
        switch (instruction.Op)
        {
            case Op.Mul:
                a.imul(rax, rcx);
                break;
            case Op.Mulw:
                a.imul(eax, ecx);
                break;
            case Op.Mulh:
                a.imul(rcx);
                a.mov(rax, rdx);
                break;
            case Op.Mulhu:
                a.mul(rcx);
                a.mov(rax, rdx);
                break;
            case Op.Mulhsu:
                EmitMulhsu(a);
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

        GuestRegisters.Store(a, instruction.Rd, rax);
    }

    /// <summary>Signed by unsigned: as both unsigned, minus the second operand in the upper half where the first is negative.</summary>
    private static void EmitMulhsu(Assembler a)
    {
        a.mov(rsi, rax);
        a.sar(rsi, 63);
        a.and(rsi, rcx);
        a.mul(rcx);
        a.mov(rax, rdx);
        a.sub(rax, rsi);
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
