using Iced.Intel;
using PvPatch;
using PvPatch.Live;
using RiscV.Host;
using RiscV.Translator;
using static Iced.Intel.AssemblerRegisters;

namespace RiscV.Patching;

/// <summary>
/// The fixed code around the regions: the way in, the ways out, and the way to C#. All of it is in the arena, where every region reaches it
/// with a rel32. Here guest registers are moved between host registers and <see cref="CpuState"/>.
/// </summary>
/// <remarks>
/// The stack: <c>Enter</c> pushes six registers and leaves eight bytes free, so that it is aligned in a region, as the System V convention
/// wants it before a call. A function called from a site can leave for good by dropping its return address.
/// </remarks>
internal sealed unsafe class Stubs
{
    // What a C function keeps, and generated code uses.
    private static readonly AssemblerRegister64[] s_kept = [rbx, rbp, r12, r13, r14, r15];

    private readonly CodeArena _arena;
    private readonly Dictionary<StopReason, VirtualAddress> _stops = [];

    public Stubs(CodeArena arena, RegisterMap map)
    {
        _arena = arena;
        Map = map;
        Leave = Emit(a =>
        {
            map.EmitSpill(a);
            a.add(rsp, 8);
            Array.ForEach([.. s_kept.Reverse()], a.pop);
            a.ret();
        });
        Enter = Emit(a =>
        {
            Array.ForEach(s_kept, a.push);
            a.sub(rsp, 8);
            a.mov(rbp, rdi);
            a.mov(rax, rsi);
            a.mov(rbx, __qword_ptr[rbp + CpuLayout.Window]);
            map.EmitFill(a);
            a.jmp(rax);
        });
        Untranslated = EmitExit(StopReason.Untranslated);
        CodeChanged = EmitExit(StopReason.CodeChanged);
        UntranslatedWord = Emit(a =>
        {
            a.lea(rax, __[rcx * 4]);
            a.add(rax, __qword_ptr[rbp + CpuLayout.CodeStart]);
            a.jmp(Untranslated.Value);
        });
        OutOfTicks = Emit(a =>
        {
            a.add(r15, rcx); // the block was not executed
            a.mov(__qword_ptr[rbp + CpuLayout.Pc], rax);
            a.mov(__dword_ptr[rbp + CpuLayout.Stop], (int)StopReason.OutOfTicks);
            a.jmp(Leave.Value);
        });
        foreach (StopReason reason in Enum.GetValues<StopReason>())
        {
            _stops.Add(reason, EmitStop(reason));
        }
    }

    /// <summary>Which guest registers are in host registers.</summary>
    public RegisterMap Map { get; }

    /// <summary><c>void Enter(CpuState* cpu, void* block)</c>.</summary>
    public VirtualAddress Enter { get; }

    /// <summary>Jumped to: back to the caller of <see cref="Enter"/>.</summary>
    public VirtualAddress Leave { get; }

    /// <summary>Jumped to at a block's end with the next guest address in rax.</summary>
    public VirtualAddress Untranslated { get; }

    /// <summary>Jumped to with the number of the next word of code in rcx: what all links lead to before there is a block.</summary>
    public VirtualAddress UntranslatedWord { get; }

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

    /// <summary>
    /// Emits a function for sites that calls one of C: it sees the guest's registers where they are outside of generated code, and what it
    /// destroys is put right again.
    /// </summary>
    /// <param name="target">The C function.</param>
    /// <param name="keepsScratch">Whether rax, rcx and rdx are kept; else rax has the function's result.</param>
    /// <param name="arguments">
    /// Emits moving the arguments to where C wants them; it is told where the return address is, which names the site.
    /// </param>
    /// <param name="then">Emits what else is to be done.</param>
    public VirtualAddress EmitCall(
        VirtualAddress target,
        bool keepsScratch,
        Action<Assembler, AssemblerMemoryOperand> arguments,
        Action<Assembler>? then = null) => Emit(a =>
    {
        // rsi and rdi may hold copies. An odd number of registers aligns the stack.
        AssemblerRegister64[] kept = keepsScratch ? [rax, rcx, rdx, rsi, rdi] : [rcx, rsi, rdi];
        Map.EmitSpill(a);
        Array.ForEach(kept, a.push);
        arguments(a, __qword_ptr[rsp + 8 * kept.Length]);
        a.mov(r11, target.Value); // 64 bits: the runtime's code may be out of a rel32's reach
        a.call(r11);
        Array.ForEach([.. kept.Reverse()], a.pop);
        Map.EmitFill(a);
        then?.Invoke(a);
        a.ret();
    });

    private VirtualAddress EmitExit(StopReason reason) => Emit(a =>
    {
        a.mov(__qword_ptr[rbp + CpuLayout.Pc], rax);
        a.mov(__dword_ptr[rbp + CpuLayout.Stop], (int)reason);
        a.jmp(Leave.Value);
    });

    private VirtualAddress EmitStop(StopReason reason) => Emit(a =>
    {
        a.pop(__qword_ptr[rbp + CpuLayout.Site]);
        a.mov(__dword_ptr[rbp + CpuLayout.Stop], (int)reason);
        a.jmp(Leave.Value);
    });
}
