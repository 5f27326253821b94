using System.Runtime.CompilerServices;
using RiscV.Host;

namespace RiscV.Interpreter;

/// <summary>Loads and stores. Outside RAM they stop; they need not be aligned.</summary>
internal static unsafe class MemoryHandlers
{
    public static ulong Lb(CpuState* s, Decoded* d) =>
        TryFind(s, d, 1, StopReason.LoadFault, out byte* at) ? Load(s, d, (ulong)(sbyte)*at) : d->Pc;

    public static ulong Lh(CpuState* s, Decoded* d) =>
        TryFind(s, d, 2, StopReason.LoadFault, out byte* at) ? Load(s, d, (ulong)*(short*)at) : d->Pc;

    public static ulong Lw(CpuState* s, Decoded* d) =>
        TryFind(s, d, 4, StopReason.LoadFault, out byte* at) ? Load(s, d, (ulong)*(int*)at) : d->Pc;

    public static ulong Ld(CpuState* s, Decoded* d) =>
        TryFind(s, d, 8, StopReason.LoadFault, out byte* at) ? Load(s, d, *(ulong*)at) : d->Pc;

    public static ulong Lbu(CpuState* s, Decoded* d) => TryFind(s, d, 1, StopReason.LoadFault, out byte* at) ? Load(s, d, *at) : d->Pc;

    public static ulong Lhu(CpuState* s, Decoded* d) =>
        TryFind(s, d, 2, StopReason.LoadFault, out byte* at) ? Load(s, d, *(ushort*)at) : d->Pc;

    public static ulong Lwu(CpuState* s, Decoded* d) =>
        TryFind(s, d, 4, StopReason.LoadFault, out byte* at) ? Load(s, d, *(uint*)at) : d->Pc;

    public static ulong Sb(CpuState* s, Decoded* d) => Store(s, d, 1);

    public static ulong Sh(CpuState* s, Decoded* d) => Store(s, d, 2);

    public static ulong Sw(CpuState* s, Decoded* d) => Store(s, d, 4);

    public static ulong Sd(CpuState* s, Decoded* d) => Store(s, d, 8);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool TryFind(CpuState* s, Decoded* d, uint width, StopReason fault, out byte* at)
    {
        ulong address = s->X[d->Rs1] + (ulong)d->Imm;
        at = s->Window + address;
        if (address - s->RamStart <= s->RamSize - width)
        {
            return true;
        }

        s->Stop = fault;
        s->FaultAddress = address;
        return false;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Load(CpuState* s, Decoded* d, ulong value)
    {
        s->X[d->Rd] = value;
        return d->Pc + 4;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Store(CpuState* s, Decoded* d, uint width)
    {
        if (!TryFind(s, d, width, StopReason.StoreFault, out byte* at))
        {
            return d->Pc;
        }

        ulong value = s->X[d->Rs2];
        switch (width)
        {
            case 1:
                *at = (byte)value;
                break;
            case 2:
                *(ushort*)at = (ushort)value;
                break;
            case 4:
                *(uint*)at = (uint)value;
                break;
            default:
                *(ulong*)at = value;
                break;
        }

        return d->Pc + 4;
    }
}
