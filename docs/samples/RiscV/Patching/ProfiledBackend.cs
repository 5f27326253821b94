using PvPatch;
using PvPatch.Live;
using PvPatch.Mechanisms;
using RiscV.Host;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;

namespace RiscV.Patching;

/// <summary>
/// <c>profiled</c>: counts loads and stores by operation, and entries by block. A counted access is two instructions: too many for a live
/// site, so PvPatch puts them into an island near the block and a jump into the site. Blocks are counted in C#, by the operation at their
/// head.
/// </summary>
internal static unsafe class ProfiledBackend
{
    public static Backend Create(Backend fast, Stubs stubs)
    {
        VirtualAddress helper = ManagedTarget.Of((delegate* unmanaged<ulong, CpuState*, void>)&Helpers.Block);
        VirtualAddress tick = stubs.EmitCall(
            helper,
            keepsScratch: true,
            static (a, site) =>
            {
                a.mov(rdi, site);
                a.mov(rsi, rbp);
            },
            FastBackend.Tick);
        return fast.Derive("profiled", b =>
        {
            foreach (Op op in GuestOps.Accesses)
            {
                b.Inline(GuestOps.SlotName(op), a =>
                {
                    a.inc(__qword_ptr[rbp + CpuLayout.Counter(CounterOf(op))]);
                    FastBackend.Access(a, op);
                });
            }

            b.Call("timer.tick", tick, "counted tick", GuestOps.TickClobbers);
        });
    }

    /// <summary>Which of <see cref="CpuState.Counters"/> counts an operation.</summary>
    public static int CounterOf(Op op) => op - Op.Lb;
}
