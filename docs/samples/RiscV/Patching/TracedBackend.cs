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
                b.Call(GuestOps.SlotName(op), Emit(stubs, op, helper), $"traced {op}", GuestOps.Clobbers);
            }
        });
    }

    /// <summary>The site is the return address, that is, its end. What the helper loaded stays in rax.</summary>
    private static VirtualAddress Emit(Stubs stubs, Op op, VirtualAddress helper) =>
        stubs.EmitCall(helper, keepsScratch: false, (a, site) =>
    {
        a.mov(rdi, rdx);
        a.mov(rsi, rax);
        a.mov(rdx, site);
        a.mov(rcx, rbp);
        a.mov(r8d, (int)op);
    });
}
