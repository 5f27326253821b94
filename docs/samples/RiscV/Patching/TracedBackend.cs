using Iced.Intel;
using PvPatch;
using PvPatch.Live;
using PvPatch.Mechanisms;
using RiscV.Host;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;

namespace RiscV.Patching;

/// <summary><c>traced</c>: C# is told of every load and store, and does it; otherwise as <c>fast</c>.</summary>
internal static unsafe class TracedBackend
{
    public static Backend Create(Backend fast, Stubs stubs)
    {
        VirtualAddress helper = ManagedTarget.Of((delegate* unmanaged<ulong, ulong, ulong, CpuState*, int, ulong>)&Helpers.Access);
        return fast.Derive("traced", b =>
        {
            foreach (Op op in GuestOps.Accesses)
            {
                b.Call(GuestOps.SlotName(op), stubs.Emit(a => Emit(a, op, helper)), $"traced {op}");
            }
        });
    }

    /// <summary>
    /// rdi and rsi are where C wants its first two arguments. The third is the site: the return address, that is, its end. Then the helper
    /// returns to the site itself, with what it loaded in rax.
    /// </summary>
    private static void Emit(Assembler a, Op op, VirtualAddress helper)
    {
        a.mov(rdx, __qword_ptr[rsp]);
        a.mov(rcx, r15);
        a.mov(r8d, (int)op);
        a.mov(rax, helper.Value); // 64 bits: the runtime's code may be out of a rel32's reach
        a.jmp(rax);
    }
}
