using Iced.Intel;
using PvPatch.Mechanisms;
using RiscV.Host;
using RiscV.Isa;
using static Iced.Intel.AssemblerRegisters;

namespace RiscV.Patching;

/// <summary>
/// <c>fast</c>: every load and store is one instruction in the block itself. The address is cut to the 32 bits of the guest's window, so
/// the guest can't hurt its host, only itself: nothing is checked, and what would fault reads and writes memory that is otherwise unused.
/// </summary>
internal static class FastBackend
{
    public static Backend Create(Stubs stubs) => Backend.Create("fast", GuestOps.Layout, b =>
    {
        foreach (Op op in GuestOps.Accesses)
        {
            b.Inline(GuestOps.SlotName(op), a => Access(a, op));
        }

        b.Inline("timer.tick", Tick);
        b.Call("trap.ecall", stubs.Stop(StopReason.Ecall), "ecall", GuestOps.Clobbers);
        b.Call("trap.ebreak", stubs.Stop(StopReason.Ebreak), "ebreak", GuestOps.Clobbers);
        b.Call("trap.illegal", stubs.Stop(StopReason.Illegal), "illegal", GuestOps.Clobbers);
        b.Call("trap.fetch", stubs.Stop(StopReason.FetchMisaligned), "fetch", GuestOps.Clobbers);
    });

    /// <summary>The one instruction of a load or store.</summary>
    public static void Access(Assembler a, Op op)
    {
        switch (op)
        {
            case Op.Lb:
                a.movsx(rax, __byte_ptr[rbx + rcx]);
                break;
            case Op.Lh:
                a.movsx(rax, __word_ptr[rbx + rcx]);
                break;
            case Op.Lw:
                a.movsxd(rax, __dword_ptr[rbx + rcx]);
                break;
            case Op.Ld:
                a.mov(rax, __qword_ptr[rbx + rcx]);
                break;
            case Op.Lbu:
                a.movzx(eax, __byte_ptr[rbx + rcx]);
                break;
            case Op.Lhu:
                a.movzx(eax, __word_ptr[rbx + rcx]);
                break;
            case Op.Lwu:
                a.mov(eax, __dword_ptr[rbx + rcx]);
                break;
            case Op.Sb:
                a.mov(__byte_ptr[rbx + rcx], al);
                break;
            case Op.Sh:
                a.mov(__word_ptr[rbx + rcx], ax);
                break;
            case Op.Sw:
                a.mov(__dword_ptr[rbx + rcx], eax);
                break;
            default:
                a.mov(__qword_ptr[rbx + rcx], rax);
                break;
        }
    }

    /// <summary>The flags of the subtraction are the result: the block goes on with a jump on the sign.</summary>
    public static void Tick(Assembler a) => a.sub(r15, rcx);
}
