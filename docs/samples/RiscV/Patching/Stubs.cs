using Iced.Intel;
using PvPatch;
using PvPatch.Live;
using RiscV.Host;
using static Iced.Intel.AssemblerRegisters;

namespace RiscV.Patching;

/// <summary>
/// The fixed code around the blocks: the way in, the ways out. All of it is in the arena, where every block reaches it with a rel32.
/// </summary>
/// <remarks>
/// The stack: <c>Enter</c> pushes three registers, so that it is aligned in a block, as the System V convention wants it before a call. A
/// function called from a site can therefore jump on to a C function as it is; and it can leave for good by dropping its return address.
/// </remarks>
internal sealed unsafe class Stubs
{
    private readonly CodeArena _arena;
    private readonly Dictionary<StopReason, VirtualAddress> _stops = [];

    public Stubs(CodeArena arena)
    {
        _arena = arena;
        Leave = Emit(static a =>
        {
            a.pop(r15);
            a.pop(r14);
            a.pop(rbx);
            a.ret();
        });
        Enter = Emit(static a =>
        {
            a.push(rbx);
            a.push(r14);
            a.push(r15);
            a.mov(r15, rdi);
            a.mov(rbx, __qword_ptr[r15 + CpuLayout.Window]);
            a.mov(r14, __qword_ptr[r15 + CpuLayout.Links]);
            a.jmp(rsi);
        });
        Untranslated = EmitExit(StopReason.Untranslated);
        CodeChanged = EmitExit(StopReason.CodeChanged);
        OutOfTicks = Emit(a =>
        {
            a.add(__qword_ptr[r15 + CpuLayout.TicksLeft], rcx); // the block was not executed
            a.mov(__qword_ptr[r15 + CpuLayout.Pc], rax);
            a.mov(__dword_ptr[r15 + CpuLayout.Stop], (int)StopReason.OutOfTicks);
            a.jmp(Leave.Value);
        });
        foreach (StopReason reason in Enum.GetValues<StopReason>())
        {
            _stops.Add(reason, EmitStop(reason));
        }
    }

    /// <summary><c>void Enter(CpuState* cpu, void* block)</c>.</summary>
    public VirtualAddress Enter { get; }

    /// <summary>Jumped to: back to the caller of <see cref="Enter"/>.</summary>
    public VirtualAddress Leave { get; }

    /// <summary>Jumped to at a block's end with the next guest address in rax: what all links lead to before there is a block.</summary>
    public VirtualAddress Untranslated { get; }

    /// <summary>Jumped to behind a fence.i, with the next guest address in rax.</summary>
    public VirtualAddress CodeChanged { get; }

    /// <summary>Jumped to at a block's head, with its address in rax and its length in rcx.</summary>
    public VirtualAddress OutOfTicks { get; }

    /// <summary>
    /// Called from a site, and does not return to it: stops for a reason, at the guest instruction to which the return address belongs.
    /// </summary>
    public VirtualAddress Stop(StopReason reason) => _stops[reason];

    /// <summary>Emits a function into the arena.</summary>
    public VirtualAddress Emit(Action<Assembler> write)
    {
        var assembler = new Assembler(64);
        write(assembler);
        return _arena.Emit(assembler).Address;
    }

    private VirtualAddress EmitExit(StopReason reason) => Emit(a =>
    {
        a.mov(__qword_ptr[r15 + CpuLayout.Pc], rax);
        a.mov(__dword_ptr[r15 + CpuLayout.Stop], (int)reason);
        a.jmp(Leave.Value);
    });

    private VirtualAddress EmitStop(StopReason reason) => Emit(a =>
    {
        a.pop(__qword_ptr[r15 + CpuLayout.Site]);
        a.mov(__dword_ptr[r15 + CpuLayout.Stop], (int)reason);
        a.jmp(Leave.Value);
    });
}
