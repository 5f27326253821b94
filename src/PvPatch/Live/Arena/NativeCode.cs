using System.Buffers.Binary;
using Iced.Intel;
using PvPatch.Live.Platform;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Live;

/// <summary>
/// The machine code an arena needs for itself: traps for slots without an operation, the barrier as a function, and the guard routine.
/// Guards are put up and taken down in one native call, because a managed patcher can be stopped by the garbage collector between the two,
/// and the collector may be waiting for the very thread that spins on the guard.
/// </summary>
internal sealed class NativeCode
{
    private const int SlotTrapLength = 4;

    private NativeCode()
    {
    }

    /// <summary><c>ud2</c>.</summary>
    public VirtualAddress Trap { get; private init; }

    /// <summary><c>ret</c>: a function that does nothing.</summary>
    public VirtualAddress Return { get; private init; }

    /// <summary><c>xor eax,eax; ret</c>: a function that gives 0.</summary>
    public VirtualAddress ReturnZero { get; private init; }

    /// <summary>Runs the barrier, gives 0; address 0 where only managed code can run it.</summary>
    public VirtualAddress Barrier { get; private init; }

    /// <summary>The routine; see <see cref="WriteGuards"/>.</summary>
    public VirtualAddress Guards { get; private init; }

    /// <summary>
    /// <c>ulong SwapGsBase(ulong)</c>: sets the gs base of the thread, gives what it was; address 0 where a thread can't set it.
    /// <code>
    /// f3 48 0f ae c8    rdgsbase rax
    /// f3 48 0f ae df    wrgsbase rdi
    /// c3                ret
    /// </code>
    /// </summary>
    public VirtualAddress SwapGsBase { get; private init; }

    /// <summary>Bytes for the traps of so many slots.</summary>
    public static int SlotTrapsLength(int slots) => Math.Max(1, slots) * SlotTrapLength;

    /// <summary>Where a slot's trap is.</summary>
    public static VirtualAddress SlotTrap(VirtualAddress traps, int slot) => traps + slot * SlotTrapLength;

    /// <summary>
    /// Writes what slots without an operation hold, a trap for each, so that where a machine dies shows what was called; as many as there
    /// is room for.
    /// <code>
    /// 0f 0b    ud2
    /// 2a 00    the slot's index, which is never run; to be read from a core dump behind the instruction pointer
    /// </code>
    /// </summary>
    public static void WriteSlotTraps(Span<byte> destination)
    {
        for (int at = 0; at < destination.Length; at += SlotTrapLength)
        {
            destination[at] = 0x0f;
            destination[at + 1] = 0x0b;
            BinaryPrimitives.WriteUInt16LittleEndian(destination[(at + 2)..], (ushort)(at / SlotTrapLength));
        }
    }

    /// <summary>The slot whose trap stands at an address.</summary>
    public static bool TryFindSlotTrap(VirtualAddress traps, int slots, VirtualAddress address, out int slot)
    {
        long offset = address - traps;
        slot = (int)(offset / SlotTrapLength);
        return offset >= 0 && offset < (long)slots * SlotTrapLength && offset % SlotTrapLength == 0;
    }

    /// <summary>Assembles them into an arena.</summary>
    public static bool TryCreate(
        ArenaMemory memory, LivePlatform platform, BarrierKind kind, out NativeCode? code, out PatchDiagnostic? error)
    {
        code = null;
        var assembler = new Assembler(64);
        Label trap = assembler.CreateLabel();
        Label barrier = assembler.CreateLabel();
        Label guards = assembler.CreateLabel();
        Label zero = assembler.CreateLabel();
        Label nothing = assembler.CreateLabel();
        assembler.Label(ref trap);
        assembler.ud2();
        assembler.Label(ref zero);
        assembler.xor(eax, eax);
        assembler.Label(ref nothing);
        assembler.ret();
        assembler.Label(ref guards);
        WriteGuards(assembler, OperatingSystem.IsWindows());
        assembler.Label(ref barrier);
        bool native = platform.TryWriteBarrier(assembler, kind);
        assembler.int3(); // behind the last instruction of each, so that the label before has one to stand at in any case
        Label swapGsBase = assembler.CreateLabel();
        assembler.Label(ref swapGsBase);
        if (platform.CanSetGsBase)
        {
            assembler.rdgsbase(rax);
            assembler.wrgsbase(rdi);
            assembler.ret();
        }

        assembler.int3();

        if (!memory.TryTakeCode(1024, SiteRecord.LineSize, out VirtualAddress address, out _, out error))
        {
            return false;
        }

        using var stream = new MemoryStream();
        AssemblerResult result = assembler.Assemble(
            new StreamCodeWriter(stream), address.Value, BlockEncoderOptions.ReturnNewInstructionOffsets);
        stream.ToArray().CopyTo(memory.Span(address, 1024));
        code = new NativeCode
        {
            Trap = result.GetLabelRIP(trap),
            ReturnZero = result.GetLabelRIP(zero),
            Return = result.GetLabelRIP(nothing),
            Guards = result.GetLabelRIP(guards),
            Barrier = native ? result.GetLabelRIP(barrier) : VirtualAddress.Zero,
            SwapGsBase = platform.CanSetGsBase ? result.GetLabelRIP(swapGsBase) : VirtualAddress.Zero,
        };
        return true;
    }

    /// <summary>
    /// <c>int Guards(GuardEntry* entries, long count, int phase, void* barrier)</c>. From the phase asked for: 1 puts the guards up, 2
    /// writes the tails, 3 the heads; behind each runs the barrier. Gives 0 when all is done; else the phase whose stores are made but
    /// whose barrier was not run, because it failed or because there is none: the caller runs another one and goes on with the next phase.
    /// </summary>
    private static void WriteGuards(Assembler a, bool windows)
    {
        AssemblerRegister64[] saved = windows ? [rbx, rbp, r12, r13, r14, rdi, rsi] : [rbx, rbp, r12, r13, r14];
        Label phase = a.CreateLabel();
        Label tails = a.CreateLabel();
        Label heads = a.CreateLabel();
        Label guard = a.CreateLabel();
        Label barrier = a.CreateLabel();
        Label pending = a.CreateLabel();
        Label leave = a.CreateLabel();

        // An odd number of pushes in both conventions: the stack is 16-aligned at the call below.
        foreach (AssemblerRegister64 register in saved)
        {
            a.push(register);
        }

        a.mov(r12, windows ? rcx : rdi); // entries
        a.mov(r13, windows ? rdx : rsi); // count
        a.mov(ebp, windows ? r8d : edx); // phase
        a.mov(r14, windows ? r9 : rcx); // barrier
        if (windows)
        {
            a.sub(rsp, 32); // room that belongs to a callee there
        }

        a.Label(ref phase);
        a.mov(rbx, r12);
        a.mov(r8, r13);
        a.cmp(ebp, 2);
        a.je(tails);
        a.ja(heads);

        a.Label(ref guard);
        WriteTwoBytes(a, GuardEntry.GuardOffset);
        a.jnz(guard);
        a.jmp(barrier);

        a.Label(ref tails);
        WriteTail(a);
        a.jnz(tails);
        a.jmp(barrier);

        a.Label(ref heads);
        WriteTwoBytes(a, GuardEntry.HeadOffset);
        a.jnz(heads);

        a.Label(ref barrier);
        a.test(r14, r14);
        a.jz(pending);
        a.call(r14);
        a.test(eax, eax);
        a.jnz(pending);
        a.inc(ebp);
        a.cmp(ebp, 3);
        a.jbe(phase);
        a.xor(eax, eax);
        a.jmp(leave);
        a.Label(ref pending);
        a.mov(eax, ebp);
        a.Label(ref leave);
        if (windows)
        {
            a.add(rsp, 32);
        }

        foreach (AssemblerRegister64 register in saved.Reverse())
        {
            a.pop(register);
        }

        a.ret();
    }

    /// <summary>One 2-byte store: it lies inside an aligned 8, so it is seen whole or not at all.</summary>
    private static void WriteTwoBytes(Assembler a, int offset)
    {
        a.mov(rdi, __qword_ptr[rbx]);
        a.movzx(eax, __word_ptr[rbx + offset]);
        a.mov(__word_ptr[rdi], ax);
        Next(a);
    }

    /// <summary>
    /// 1 to 13 bytes behind the first two, by a store at the start and one at the end that may overlap. The guard hides them, so it does
    /// not matter what is seen in between.
    /// </summary>
    private static void WriteTail(Assembler a)
    {
        Label eight = a.CreateLabel();
        Label two = a.CreateLabel();
        Label done = a.CreateLabel();
        a.mov(rdi, __qword_ptr[rbx]);
        a.mov(ecx, __dword_ptr[rbx + GuardEntry.TailLengthOffset]);
        a.cmp(ecx, 4);
        a.jb(two);
        a.cmp(ecx, 8);
        a.jae(eight);
        a.mov(eax, __dword_ptr[rbx + GuardEntry.TailOffset]);
        a.mov(edx, __dword_ptr[rbx + rcx + (GuardEntry.TailOffset - 4)]);
        a.mov(__dword_ptr[rdi + 2], eax);
        a.mov(__dword_ptr[rdi + rcx - 2], edx);
        a.jmp(done);
        a.Label(ref eight);
        a.mov(rax, __qword_ptr[rbx + GuardEntry.TailOffset]);
        a.mov(rdx, __qword_ptr[rbx + rcx + (GuardEntry.TailOffset - 8)]);
        a.mov(__qword_ptr[rdi + 2], rax);
        a.mov(__qword_ptr[rdi + rcx - 6], rdx);
        a.jmp(done);
        a.Label(ref two); // up to three bytes: the first, the last, and the one in the middle of three
        a.movzx(eax, __byte_ptr[rbx + GuardEntry.TailOffset]);
        a.movzx(edx, __byte_ptr[rbx + rcx + (GuardEntry.TailOffset - 1)]);
        a.mov(__byte_ptr[rdi + 2], al);
        a.mov(__byte_ptr[rdi + rcx + 1], dl);
        a.shr(ecx, 1);
        a.movzx(eax, __byte_ptr[rbx + rcx + GuardEntry.TailOffset]);
        a.mov(__byte_ptr[rdi + rcx + 2], al);
        a.Label(ref done);
        Next(a);
    }

    private static void Next(Assembler a)
    {
        a.add(rbx, GuardEntry.SizeInBytes);
        a.dec(r8);
    }
}
