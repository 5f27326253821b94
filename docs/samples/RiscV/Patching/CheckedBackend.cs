using Iced.Intel;
using PvPatch;
using PvPatch.Mechanisms;
using RiscV.Host;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;

namespace RiscV.Patching;

/// <summary>
/// <c>checked</c>: a load or store outside RAM or not aligned to its width stops the guest at that very instruction. The checks are a dozen
/// instructions, so they stand once in the arena and the sites call them; a fault drops the return address and leaves.
/// </summary>
internal static class CheckedBackend
{
    public static Backend Create(Backend fast, Stubs stubs) => fast.Derive("checked", b =>
    {
        foreach (Op op in GuestOps.Accesses)
        {
            b.Call(GuestOps.SlotName(op), stubs.Emit(a => Emit(a, op, stubs)), $"checked {op}", GuestOps.Clobbers);
        }
    });

    private static void Emit(Assembler a, Op op, Stubs stubs)
    {
        bool load = GuestOps.Loads.Contains(op);
        int width = GuestMemory.Width(op);
        Label outside = a.CreateLabel();
        Label misaligned = a.CreateLabel();
        a.mov(rcx, rdx);
        a.sub(rcx, __qword_ptr[rbp + CpuLayout.RamStart]); // below the start it becomes a huge number
        a.cmp(rcx, __qword_ptr[rbp + CpuLayout.LastOffset(width)]);
        a.ja(outside);
        if (width > 1)
        {
            a.test(edx, width - 1);
            a.jnz(misaligned);
        }

        a.mov(ecx, edx);
        FastBackend.Access(a, op);
        a.ret();
        a.Label(ref outside);
        Fault(a, stubs.Stop(load ? StopReason.LoadFault : StopReason.StoreFault));
        if (width > 1)
        {
            a.Label(ref misaligned);
            Fault(a, stubs.Stop(load ? StopReason.LoadMisaligned : StopReason.StoreMisaligned));
        }
    }

    private static void Fault(Assembler a, VirtualAddress stop)
    {
        a.mov(__qword_ptr[rbp + CpuLayout.FaultAddress], rdx);
        a.jmp(stop.Value);
    }
}
