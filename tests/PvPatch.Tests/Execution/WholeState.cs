using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Execution;

/// <summary>
/// Generated code that runs one site with all of the machine's state set to chosen values and notes all of it behind the site: general
/// registers, flags, x87, MXCSR, vector and mask registers, and the words below the stack pointer.
/// </summary>
internal sealed unsafe class WholeState : IDisposable
{
    /// <summary>Flags a site may have as it likes: CF, PF, AF, ZF, SF, DF, OF.</summary>
    private const ulong Flags = 0xcd5;

    private const int GeneralIn = 0;
    private const int FlagsIn = 128;
    private const int StackIn = 136;
    private const int HostStack = 144;
    private const int RedIn = 256;
    private const int GeneralOut = 512;
    private const int FlagsOut = 640;
    private const int StackOut = 648;
    private const int RedOut = 768;
    private const int RedWords = 15; // of 128 bytes all but the first, where a call's return address goes
    private const int VectorIn = 4096;
    private const int VectorOut = 16384;
    private const int Junk = 32768;
    private const int Size = 49152;

    // x87, SSE, AVX, AVX-512: as far as the system has enabled them, the processor leaves out the rest.
    private const uint Components = 0xe7;

    private readonly CodeArena _arena;
    private readonly byte* _memory = (byte*)NativeMemory.AlignedAlloc(Size, 64);
    private readonly Random _random;

    public WholeState(CodeArena arena, Random random)
    {
        _arena = arena;
        _random = random;
        new Span<byte>(_memory, Size).Clear();
        Destroyer = EmitDestroyer();
    }

    /// <summary>Whether this process can see and set all that state.</summary>
    public static bool IsSupported => OperatingSystem.IsLinux() && X86Base.IsSupported && (X86Base.CpuId(1, 0).Ecx & 1 << 27) != 0;

    /// <summary>The parts of vector state there are here: name, offset and length in bytes, in the layout of xsave.</summary>
    public static IReadOnlyList<(string Name, int Offset, int Length)> Parts { get; } = [.. AllParts()];

    /// <summary>A function that destroys all that a System V function may, and MXCSR and the x87 control word too.</summary>
    public VirtualAddress Destroyer { get; }

    /// <summary>The value of a general register at the site.</summary>
    public ulong General(int number) => Word(GeneralIn + 8 * number);

    /// <summary>The value of a general register behind the site.</summary>
    public ulong GeneralAfter(int number) => Word(GeneralOut + 8 * number);

    /// <summary>Emits <c>void f()</c> around one site.</summary>
    /// <param name="sites">The emitter.</param>
    /// <param name="slot">The operation.</param>
    /// <param name="allowed">What the site allows.</param>
    /// <param name="misaligned">By how many bytes the stack is off an aligned 64.</param>
    public CodeBlock Emit(SiteEmitter sites, OpSlot slot, RegisterSet allowed, int misaligned)
    {
        var a = new Assembler(64);
        AssemblerRegister64[] kept = [rbx, rbp, r12, r13, r14, r15];
        foreach (AssemblerRegister64 register in kept)
        {
            a.push(register);
        }

        a.mov(rax, (ulong)_memory);
        a.mov(__qword_ptr[rax + HostStack], rsp);
        a.and(rsp, -64);
        a.sub(rsp, 256 + misaligned);
        a.mov(__qword_ptr[rax + StackIn], rsp);
        for (int i = 0; i < RedWords; i++)
        {
            a.mov(rcx, __qword_ptr[rax + (RedIn + 8 * i)]);
            a.mov(__qword_ptr[rsp + (8 * i - 128)], rcx);
        }

        a.mov(rcx, rax);
        a.mov(eax, Components);
        a.xor(edx, edx);
        a.xrstor64(__[rcx + VectorIn]);
        a.push(__qword_ptr[rcx + FlagsIn]);
        a.popfq();
        for (int number = 15; number >= 0; number--)
        {
            if (number is not (1 or 4))
            {
                Move(a, Code.Mov_r64_rm64, number, Register.RCX, GeneralIn);
            }
        }

        Move(a, Code.Mov_r64_rm64, 1, Register.RCX, GeneralIn);
        sites.Emit(a, slot, 6, allowed);
        a.AddInstruction(Instruction.Create(
            Code.Mov_moffs64_RAX, new MemoryOperand(Register.None, (long)(_memory + GeneralOut), 8), Register.RAX));
        a.mov(rax, (ulong)_memory);
        for (int number = 1; number < 16; number++)
        {
            if (number != 4)
            {
                Move(a, Code.Mov_rm64_r64, number, Register.RAX, GeneralOut);
            }
        }

        a.mov(__qword_ptr[rax + StackOut], rsp);
        a.mov(rsp, __qword_ptr[rax + StackIn]);
        for (int i = 0; i < RedWords; i++)
        {
            a.mov(rcx, __qword_ptr[rsp + (8 * i - 128)]);
            a.mov(__qword_ptr[rax + (RedOut + 8 * i)], rcx);
        }

        a.pushfq();
        a.pop(__qword_ptr[rax + FlagsOut]);
        a.cld();
        a.mov(rcx, rax);
        a.mov(eax, Components);
        a.xor(edx, edx);
        a.xsave64(__[rcx + VectorOut]);
        a.fninit();
        a.mov(__dword_ptr[rcx], 0x1f80);
        a.ldmxcsr(__dword_ptr[rcx]);
        a.mov(rsp, __qword_ptr[rcx + HostStack]);
        foreach (AssemblerRegister64 register in kept.Reverse())
        {
            a.pop(register);
        }

        a.ret();
        return _arena.Emit(a, sites);
    }

    /// <summary>Runs a block with new random values everywhere and tells what is different behind the site.</summary>
    /// <param name="block">The block.</param>
    /// <param name="tame">Whether the site has what a call takes for granted: the direction flag clear, the x87 stack empty.</param>
    public IReadOnlyList<string> Run(CodeBlock block, bool tame = false)
    {
        _random.NextBytes(new Span<byte>(_memory, VectorIn));
        FillVector(_memory + VectorIn, tame);
        FillVector(_memory + Junk, tame);
        new Span<byte>(_memory + VectorOut, 8192).Clear();
        Word(FlagsIn) = Word(FlagsIn) & (tame ? Flags & ~0x400UL : Flags) | 0x202;
        ulong first = Word(GeneralIn);
        ((delegate* unmanaged<void>)block.Address.Value)();
        Word(GeneralIn) = first; // was used to bring the state back
        return [.. Changed()];
    }

    public void Dispose() => NativeMemory.AlignedFree(_memory);

    private IEnumerable<string> Changed()
    {
        for (int number = 0; number < 16; number++)
        {
            if (number != 4 && General(number) != GeneralAfter(number))
            {
                yield return RegisterSet.General(number).ToString();
            }
        }

        if (((Word(FlagsIn) ^ Word(FlagsOut)) & Flags) != 0)
        {
            yield return "flags";
        }

        if (Word(StackIn) != Word(StackOut))
        {
            yield return "rsp";
        }

        if (!Bytes(RedIn, 8 * RedWords).SequenceEqual(Bytes(RedOut, 8 * RedWords)))
        {
            yield return "red zone";
        }

        foreach (string name in Parts.Where(p => !Bytes(VectorIn + p.Offset, p.Length).SequenceEqual(Bytes(VectorOut + p.Offset, p.Length)))
            .Select(static p => p.Name).Distinct())
        {
            yield return name;
        }
    }

    private void FillVector(byte* area, bool tame)
    {
        var bytes = new Span<byte>(area, 8192);
        _random.NextBytes(bytes);
        bytes[512..576].Clear();
        *(ulong*)(area + 512) = Components & (ulong)X86Base.CpuId(0xd, 0).Eax;

        // Now and then an x87 exception is pending that the control word does not mask: the next x87 instruction that waits would fault.
        bool pending = !tame && _random.Next(4) == 0;
        int control = _random.Next(16) << 8 | 0x7f;
        int status = _random.Next(0x80) | _random.Next(0x80) << 8 & 0x7f00;
        *(ushort*)area = (ushort)(pending ? control & ~4 : control);
        *(ushort*)(area + 2) = (ushort)(pending ? status | 0x8084 : status); // B, ES, ZE
        area[4] = tame ? (byte)0 : area[4];
        *(ulong*)(area + 6) = 0;
        *(ulong*)(area + 14) = 0;
        *(ushort*)(area + 22) = 0;
        *(uint*)(area + 24) = (uint)(_random.Next(0x10000) | 0x1f80); // all masked
        *(uint*)(area + 28) = 0;
    }

    private VirtualAddress EmitDestroyer()
    {
        var a = new Assembler(64);
        a.mov(rcx, (ulong)_memory);
        a.mov(eax, Components);
        a.xor(edx, edx);
        a.xrstor64(__[rcx + Junk]);
        foreach (AssemblerRegister64 register in (AssemblerRegister64[])[rax, rdx, rsi, rdi, r8, r9, r10, r11])
        {
            a.mov(register, _random.NextInt64());
        }

        a.xor(ecx, ecx);
        a.ret();
        return _arena.Emit(a).Address;
    }

    private static void Move(Assembler a, Code code, int number, Register memory, int offset)
    {
        Register register = Register.RAX + number;
        var operand = new MemoryOperand(memory, offset + 8 * number);
        a.AddInstruction(
            code == Code.Mov_r64_rm64 ? Instruction.Create(code, register, operand) : Instruction.Create(code, operand, register));
    }

    private static IEnumerable<(string Name, int Offset, int Length)> AllParts()
    {
        yield return ("x87", 0, 5); // control, status, tags
        for (int i = 0; i < 8; i++)
        {
            yield return ("x87", 32 + 16 * i, 10);
        }

        yield return ("mxcsr", 24, 4);
        yield return ("xmm", 160, 256);
        (int Component, string Name)[] others = [(2, "ymm"), (5, "k"), (6, "zmm"), (7, "zmm16")];
        foreach ((int component, string name) in others)
        {
            if ((X86Base.CpuId(0xd, 0).Eax >> component & 1) != 0)
            {
                (int length, int offset, _, _) = X86Base.CpuId(0xd, component);
                yield return (name, offset, length);
            }
        }
    }

    private ref ulong Word(int offset) => ref *(ulong*)(_memory + offset);

    private Span<byte> Bytes(int offset, int length) => new(_memory + offset, length);
}
