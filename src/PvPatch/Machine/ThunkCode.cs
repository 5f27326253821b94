using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Machine;

/// <summary>
/// A save/restore thunk, by what makes it one. It pushes what the target destroys and the site must keep, calls the target, pops, returns.
/// </summary>
/// <param name="Target">Run address of the function that it calls.</param>
/// <param name="Saves">What it saves around the call: general registers and flags.</param>
/// <param name="Convention">The target's calling convention.</param>
internal readonly record struct ThunkCode(VirtualAddress Target, RegisterSet Saves, CallConvention Convention)
{
    /// <summary>Writes the thunk's instructions.</summary>
    /// <param name="a">Where to.</param>
    /// <param name="bitness">32 or 64.</param>
    public void Write(Assembler a, int bitness)
    {
        RegisterSet saves = Saves;
        int[] saved = [.. Enumerable.Range(0, 16).Where(n => n != 4 && saves.Contains(RegisterSet.General(n)))];
        bool flags = saves.Contains(RegisterSet.Flags);
        foreach (int number in saved)
        {
            Push(a, number, bitness);
        }

        if (flags)
        {
            PushFlags(a, bitness);
        }

        // The stack was aligned for the site's own call, so it is off by one word here; the target expects the same. Windows
        // callees also own 32 bytes above their return address. lea, because add would change the flags.
        int word = bitness / 8;
        int pushed = saved.Length + (flags ? 1 : 0);
        int room = bitness == 64 ? (Convention == CallConvention.WindowsX64 ? 32 : 0) + (pushed % 2 == 0 ? word : 0) : 0;
        Move(a, -room, bitness);
        a.call(Target.Value);
        Move(a, room, bitness);
        if (flags)
        {
            KeepInterruptFlag(a, bitness);
            PopFlags(a, bitness);
        }

        foreach (int number in saved.Reverse())
        {
            Pop(a, number, bitness);
        }

        a.ret();
    }

    private static void Move(Assembler a, int bytes, int bitness)
    {
        if (bytes != 0 && bitness == 64)
        {
            a.lea(rsp, __[rsp + bytes]);
        }
    }

    private static void Push(Assembler a, int number, int bitness) =>
        a.AddInstruction(bitness == 64
            ? Instruction.Create(Code.Push_r64, Register.RAX + number)
            : Instruction.Create(Code.Push_r32, Register.EAX + number));

    private static void Pop(Assembler a, int number, int bitness) =>
        a.AddInstruction(bitness == 64
            ? Instruction.Create(Code.Pop_r64, Register.RAX + number)
            : Instruction.Create(Code.Pop_r32, Register.EAX + number));

    /// <summary>
    /// Puts the interrupt flag as it is now into the saved flags on the stack: in ring 0 popf would else undo the cli or sti that the
    /// target may be there for. A register is borrowed for it; the flags changed here are about to be restored.
    /// </summary>
    private static void KeepInterruptFlag(Assembler a, int bitness)
    {
        const int Interrupt = 0x200; // IF, bit 9
        Push(a, 0, bitness);
        PushFlags(a, bitness);
        Pop(a, 0, bitness);
        if (bitness == 64)
        {
            a.and(eax, Interrupt); // clears the upper half too
            a.and(__qword_ptr[rsp + 8], ~Interrupt); // 0: the borrowed register, 8: the saved flags
            a.or(__[rsp + 8], rax);
        }
        else
        {
            a.and(eax, Interrupt);
            a.and(__dword_ptr[esp + 4], ~Interrupt);
            a.or(__[esp + 4], eax);
        }

        Pop(a, 0, bitness);
    }

    private static void PushFlags(Assembler a, int bitness)
    {
        if (bitness == 64)
        {
            a.pushfq();
        }
        else
        {
            a.pushfd();
        }
    }

    private static void PopFlags(Assembler a, int bitness)
    {
        if (bitness == 64)
        {
            a.popfq();
        }
        else
        {
            a.popfd();
        }
    }
}
