using System.Runtime.CompilerServices;
using RiscV.Host;

namespace RiscV.Interpreter;

/// <summary>The M extension.</summary>
internal static unsafe class MulDivHandlers
{
    public static ulong Mul(CpuState* s, Decoded* d) => Set(s, d, A(s, d) * B(s, d));

    public static ulong Mulh(CpuState* s, Decoded* d) => Set(s, d, (ulong)((Int128)(long)A(s, d) * (long)B(s, d) >> 64));

    public static ulong Mulhsu(CpuState* s, Decoded* d) => Set(s, d, (ulong)((Int128)(long)A(s, d) * B(s, d) >> 64));

    public static ulong Mulhu(CpuState* s, Decoded* d) => Set(s, d, (ulong)((UInt128)A(s, d) * B(s, d) >> 64));

    public static ulong Div(CpuState* s, Decoded* d) => Set(s, d, (ulong)Divide((long)A(s, d), (long)B(s, d)));

    public static ulong Divu(CpuState* s, Decoded* d) => Set(s, d, B(s, d) == 0 ? ulong.MaxValue : A(s, d) / B(s, d));

    public static ulong Rem(CpuState* s, Decoded* d) => Set(s, d, (ulong)Remainder((long)A(s, d), (long)B(s, d)));

    public static ulong Remu(CpuState* s, Decoded* d) => Set(s, d, B(s, d) == 0 ? A(s, d) : A(s, d) % B(s, d));

    public static ulong Mulw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) * (int)B(s, d));

    public static ulong Divw(CpuState* s, Decoded* d) => SetW(s, d, (int)Divide((int)A(s, d), (int)B(s, d)));

    public static ulong Divuw(CpuState* s, Decoded* d) => SetW(s, d, (uint)B(s, d) == 0 ? -1 : (int)((uint)A(s, d) / (uint)B(s, d)));

    public static ulong Remw(CpuState* s, Decoded* d) => SetW(s, d, (int)Remainder((int)A(s, d), (int)B(s, d)));

    public static ulong Remuw(CpuState* s, Decoded* d) =>
        SetW(s, d, (uint)B(s, d) == 0 ? (int)A(s, d) : (int)((uint)A(s, d) % (uint)B(s, d)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong A(CpuState* s, Decoded* d) => s->X[d->Rs1];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong B(CpuState* s, Decoded* d) => s->X[d->Rs2];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Set(CpuState* s, Decoded* d, ulong value)
    {
        s->X[d->Rd] = value;
        return d->Pc + 4;
    }

    /// <summary>Results of 32 bits are sign-extended, whatever they mean.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong SetW(CpuState* s, Decoded* d, int value) => Set(s, d, (ulong)value);

    // Nothing traps: a division by zero gives all ones and leaves the dividend; the one quotient that overflows is the dividend. The 32-bit
    // forms, done in 64 bits, cannot overflow, and cutting their quotient gives what the specification wants.
    private static long Divide(long a, long b) => b == 0 ? -1 : b == -1 ? -a : a / b;

    private static long Remainder(long a, long b) => b == 0 ? a : b == -1 ? 0 : a % b;
}
