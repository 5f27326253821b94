using System.Runtime.CompilerServices;
using RiscV.Host;

namespace RiscV.Interpreter;

/// <summary>
/// Jumps, branches and what stops. A target must be a multiple of four; the jump itself stops where it is not, and writes nothing.
/// </summary>
internal static unsafe class ControlHandlers
{
    public static ulong Jal(CpuState* s, Decoded* d) => Jump(s, d, d->Pc + (ulong)d->Imm, link: true);

    /// <summary>The target is read before the link is written: they may be the same register.</summary>
    public static ulong Jalr(CpuState* s, Decoded* d) => Jump(s, d, A(s, d) + (ulong)d->Imm & ~1UL, link: true);

    public static ulong Beq(CpuState* s, Decoded* d) => A(s, d) == B(s, d) ? Jump(s, d, d->Pc + (ulong)d->Imm, link: false) : d->Pc + 4;

    public static ulong Bne(CpuState* s, Decoded* d) => A(s, d) != B(s, d) ? Jump(s, d, d->Pc + (ulong)d->Imm, link: false) : d->Pc + 4;

    public static ulong Blt(CpuState* s, Decoded* d) =>
        (long)A(s, d) < (long)B(s, d) ? Jump(s, d, d->Pc + (ulong)d->Imm, link: false) : d->Pc + 4;

    public static ulong Bge(CpuState* s, Decoded* d) =>
        (long)A(s, d) >= (long)B(s, d) ? Jump(s, d, d->Pc + (ulong)d->Imm, link: false) : d->Pc + 4;

    public static ulong Bltu(CpuState* s, Decoded* d) => A(s, d) < B(s, d) ? Jump(s, d, d->Pc + (ulong)d->Imm, link: false) : d->Pc + 4;

    public static ulong Bgeu(CpuState* s, Decoded* d) => A(s, d) >= B(s, d) ? Jump(s, d, d->Pc + (ulong)d->Imm, link: false) : d->Pc + 4;

    /// <summary>There is one thread and memory is in order: nothing to do.</summary>
    public static ulong Fence(CpuState* s, Decoded* d) => d->Pc + 4;

    /// <summary>Done by the engine, which has the table.</summary>
    public static ulong FenceI(CpuState* s, Decoded* d)
    {
        s->Stop = StopReason.CodeChanged;
        return d->Pc + 4;
    }

    public static ulong Ecall(CpuState* s, Decoded* d) => StopAt(s, d, StopReason.Ecall);

    public static ulong Ebreak(CpuState* s, Decoded* d) => StopAt(s, d, StopReason.Ebreak);

    public static ulong Illegal(CpuState* s, Decoded* d) => StopAt(s, d, StopReason.Illegal);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong A(CpuState* s, Decoded* d) => s->X[d->Rs1];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong B(CpuState* s, Decoded* d) => s->X[d->Rs2];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Jump(CpuState* s, Decoded* d, ulong target, bool link)
    {
        if ((target & 3) != 0)
        {
            return StopAt(s, d, StopReason.FetchMisaligned);
        }

        if (link)
        {
            s->X[d->Rd] = d->Pc + 4;
        }

        return target;
    }

    private static ulong StopAt(CpuState* s, Decoded* d, StopReason reason)
    {
        s->Stop = reason;
        return d->Pc;
    }
}
