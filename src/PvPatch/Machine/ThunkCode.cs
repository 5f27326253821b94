using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Machine;

/// <summary>
/// A thunk, by what makes it one: it saves what the target destroys and the site must keep, calls the target, restores, returns.
/// </summary>
/// <param name="Target">Run address of the function that it calls.</param>
/// <param name="Saves">What it saves around the call.</param>
/// <param name="Convention">The target's calling convention.</param>
/// <remarks>
/// Registers and flags are pushed. Vector state goes into an area of its own, aligned to 64, for which nothing is taken for granted of the
/// stack: neither how it is aligned nor that nobody uses what lies below it.
/// <code>
/// lea  rsp,[rsp-120]          what the site's code keeps below its stack pointer, but for the return address
/// push …; pushfq              what is to be kept; the flags in any case
/// push rax
/// lea  rax,[rsp+8]            the stack pointer to come back to
/// sub  rsp,size+64                                           [64] vector state
/// and  rsp,-64                                               [48] rdx
/// mov  [rsp+32],rax                                          [40] rax
/// …                                                          [32] the stack pointer to come back to
/// xsavec64 [rsp+64]           edx:eax = the components       [0]  a callee's own, by Windows' convention
/// fnclex; emms; cld           an empty x87 stack and no pending exception, as every function takes for granted
/// call target                 rax and rdx as at the site
/// xrstor64 [rsp+64]           rax and rdx as the target left them
/// mov  rsp,[rsp+32]
/// popfq; pop …
/// lea  rsp,[rsp+120]
/// ret
/// </code>
/// MXCSR and the x87 control word are those of the site in the target, as at a direct call, and restored behind it.
/// </remarks>
internal readonly record struct ThunkCode(VirtualAddress Target, RegisterSet Saves, CallConvention Convention)
{
    private const int RedZone = 128 - 8; // the return address took the first word of it
    private const int Area = 64; // vector state; below it:
    private const int RdxSlot = 48;
    private const int RaxSlot = 40;
    private const int StackSlot = 32;
    private const int PageSize = 4096;

    /// <summary>The convention of the code that calls the thunk, where arguments and result are brought over.</summary>
    public CallConvention? From { get; init; }

    /// <summary>The argument that gets the address the thunk returns to.</summary>
    public int? CallerArgument { get; init; }

    /// <summary>The registers of arguments that are brought over, in order.</summary>
    public IEnumerable<(int From, int To)> Moves(int bitness)
    {
        int[] from = From is null ? [] : From.ArgumentNumbers(bitness).ToArray();
        int[] to = Convention.ArgumentNumbers(bitness).ToArray();
        return from.Zip(to).Where(static m => m.First != m.Second);
    }

    /// <summary>Whether the result is brought over.</summary>
    public bool MovesResult => From is { ResultNumber: >= 0 } && From.ResultNumber != Convention.ResultNumber;

    /// <summary>Whether a thunk has something to do besides saving registers.</summary>
    public bool DoesMore(int bitness) =>
        CallerArgument is not null || MovesResult || Moves(bitness).Any()
            || (From is not null && From != CallConvention.WindowsX64 && Convention == CallConvention.WindowsX64);

    /// <summary>What it does, for reports.</summary>
    public string Describe(int bitness)
    {
        string?[] parts =
        [
            Saves.IsEmpty ? null : $"saves {Saves.ToString(bitness)}",
            From is null ? null : $"calls by {Convention}",
            CallerArgument is int argument ? $"passes the caller as argument {argument}" : null,
        ];
        return string.Join(", ", parts.OfType<string>());
    }

    /// <summary>What the thunk writes itself.</summary>
    public RegisterSet Writes(int bitness)
    {
        RegisterSet set = CallerArgument is int caller ? Convention.Argument(caller, bitness) : RegisterSet.None;
        set |= MovesResult ? RegisterSet.General(From!.ResultNumber) : RegisterSet.None;
        return Moves(bitness).Aggregate(set, static (all, m) => all | RegisterSet.General(m.To));
    }

    /// <summary>Writes the thunk's instructions.</summary>
    /// <param name="a">Where to.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="vector">How vector state is saved, where that is to be saved: in 64-bit code only.</param>
    public void Write(Assembler a, int bitness, VectorSave vector = default)
    {
        RegisterSet saves = Saves;
        int[] saved = [.. Enumerable.Range(0, 16).Where(n => n != 4 && saves.Contains(RegisterSet.General(n)))];
        bool savesVector = Saves.Contains(RegisterSet.Vector);
        bool flags = savesVector || Saves.Contains(RegisterSet.Flags);
        Move(a, savesVector ? -RedZone : 0, bitness);
        foreach (int number in saved)
        {
            Push(a, number, bitness);
        }

        if (flags)
        {
            PushFlags(a, bitness);
        }

        int word = bitness / 8;
        int pushed = saved.Length + (flags ? 1 : 0);
        int home = bitness == 64 && Convention == CallConvention.WindowsX64 ? 32 : 0; // a callee's own, above its return address
        if (savesVector)
        {
            SaveVector(a, vector);
            MoveArguments(a, bitness);
            if (CallerArgument is int caller)
            {
                Load(a, caller, Register.RSP, StackSlot, bitness);
                Register there = Register.RAX + Convention.ArgumentNumbers(bitness)[caller];
                Load(a, caller, there, pushed * word + RedZone, bitness);
            }

            a.call(Target.Value);
            MoveResult(a, bitness);
            RestoreVector(a, vector);
        }
        else
        {
            MoveArguments(a, bitness);
            if (CallerArgument is int caller)
            {
                Load(a, caller, bitness == 64 ? Register.RSP : Register.ESP, pushed * word, bitness);
            }

            bool hasHome = home == 0 || From is null || From == CallConvention.WindowsX64; // from the site's call
            if (pushed == 0 && !MovesResult && hasHome)
            {
                a.jmp(Target.Value); // and the target returns to the site
                return;
            }

            // The stack was aligned for the site's own call, so it is off by one word here; the target expects the same. lea, because
            // add would change the flags.
            int room = bitness == 64 ? home + (pushed % 2 == 0 ? word : 0) : 0;
            Move(a, -room, bitness);
            a.call(Target.Value);
            Move(a, room, bitness);
            MoveResult(a, bitness);
        }

        if (flags)
        {
            if (!savesVector) // such a thunk runs in a process, where nobody sets that flag
            {
                KeepInterruptFlag(a, bitness);
            }

            PopFlags(a, bitness);
        }

        foreach (int number in saved.Reverse())
        {
            Pop(a, number, bitness);
        }

        Move(a, savesVector ? RedZone : 0, bitness);
        a.ret();
    }

    /// <summary>Brings arguments to the target's registers, by way of the stack: one's place may be another's.</summary>
    private void MoveArguments(Assembler a, int bitness)
    {
        (int From, int To)[] moves = [.. Moves(bitness)];
        foreach ((int from, _) in moves)
        {
            Push(a, from, bitness);
        }

        foreach ((_, int to) in moves.Reverse())
        {
            Pop(a, to, bitness);
        }
    }

    private void MoveResult(Assembler a, int bitness)
    {
        if (MovesResult)
        {
            Register first = bitness == 64 ? Register.RAX : Register.EAX;
            a.AddInstruction(Instruction.Create(
                bitness == 64 ? Code.Mov_rm64_r64 : Code.Mov_rm32_r32, first + From!.ResultNumber,
                first + Convention.ResultNumber));
        }
    }

    /// <summary>Loads the register of the argument that gets the caller's address.</summary>
    private void Load(Assembler a, int argument, Register memory, int offset, int bitness)
    {
        int number = Convention.ArgumentNumbers(bitness)[argument];
        MemoryOperand operand = offset == 0 ? new MemoryOperand(memory) : new MemoryOperand(memory, offset);
        a.AddInstruction(bitness == 64
            ? Instruction.Create(Code.Mov_r64_rm64, Register.RAX + number, operand)
            : Instruction.Create(Code.Mov_r32_rm32, Register.EAX + number, operand));
    }

    private static void SaveVector(Assembler a, VectorSave vector)
    {
        a.push(rax);
        a.lea(rax, __[rsp + 8]);
        for (int page = PageSize; page < vector.Size + Area; page += PageSize)
        {
            a.test(__dword_ptr[rsp - page], eax); // Windows makes a stack longer page by page, as each is touched
        }

        a.sub(rsp, vector.Size + Area);
        a.and(rsp, -VectorSave.Alignment);
        a.mov(__qword_ptr[rsp + StackSlot], rax);
        a.mov(rax, __qword_ptr[rax - 8]);
        a.mov(__qword_ptr[rsp + RaxSlot], rax);
        a.mov(__qword_ptr[rsp + RdxSlot], rdx);
        switch (vector.Form)
        {
            case VectorSaveForm.Fxsave:
                a.fxsave64(__[rsp + Area]);
                break;
            case VectorSaveForm.Xsave:
                ClearHeader(a, 0); // xsave keeps bits of the first word
                a.mov(eax, vector.Mask); // and edx is zero
                a.xsave64(__[rsp + Area]);
                break;
            default:
                ClearHeader(a, 16); // xsavec writes two words
                a.mov(eax, vector.Mask);
                a.xsavec64(__[rsp + Area]);
                break;
        }

        a.fnclex();
        a.emms();
        a.cld();
        a.mov(rax, __qword_ptr[rsp + RaxSlot]);
        a.mov(rdx, __qword_ptr[rsp + RdxSlot]);
    }

    private static void RestoreVector(Assembler a, VectorSave vector)
    {
        if (vector.Form == VectorSaveForm.Fxsave)
        {
            a.fxrstor64(__[rsp + Area]);
        }
        else
        {
            a.mov(__qword_ptr[rsp + RaxSlot], rax);
            a.mov(__qword_ptr[rsp + RdxSlot], rdx);
            a.mov(eax, vector.Mask);
            a.xor(edx, edx);
            a.xrstor64(__[rsp + Area]);
            a.mov(rax, __qword_ptr[rsp + RaxSlot]);
            a.mov(rdx, __qword_ptr[rsp + RdxSlot]);
        }

        a.mov(rsp, __qword_ptr[rsp + StackSlot]);
    }

    /// <summary>Zeroes the words of the area's header that saving does not write: restoring faults where one is not zero.</summary>
    private static void ClearHeader(Assembler a, int from)
    {
        a.lea(rax, __[rsp + (Area + VectorSave.Header)]);
        a.xor(edx, edx);
        for (int at = from; at < VectorSave.Alignment; at += 8)
        {
            a.mov(__qword_ptr[rax + at], rdx);
        }
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
