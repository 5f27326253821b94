using System.Runtime.CompilerServices;
using RiscV.Host;

namespace RiscV.Interpreter;

/// <summary>Integer arithmetic.</summary>
internal static unsafe class AluHandlers
{
    public static ulong Lui(CpuState* s, Decoded* d) => Set(s, d, (ulong)d->Imm);

    public static ulong Auipc(CpuState* s, Decoded* d) => Set(s, d, d->Pc + (ulong)d->Imm);

    public static ulong Addi(CpuState* s, Decoded* d) => Set(s, d, A(s, d) + I(d));

    public static ulong Slti(CpuState* s, Decoded* d) => Set(s, d, (long)A(s, d) < d->Imm ? 1UL : 0);

    public static ulong Sltiu(CpuState* s, Decoded* d) => Set(s, d, A(s, d) < I(d) ? 1UL : 0);

    public static ulong Xori(CpuState* s, Decoded* d) => Set(s, d, A(s, d) ^ I(d));

    public static ulong Ori(CpuState* s, Decoded* d) => Set(s, d, A(s, d) | I(d));

    public static ulong Andi(CpuState* s, Decoded* d) => Set(s, d, A(s, d) & I(d));

    public static ulong Slli(CpuState* s, Decoded* d) => Set(s, d, A(s, d) << d->Imm);

    public static ulong Srli(CpuState* s, Decoded* d) => Set(s, d, A(s, d) >> d->Imm);

    public static ulong Srai(CpuState* s, Decoded* d) => Set(s, d, (ulong)((long)A(s, d) >> d->Imm));

    public static ulong Add(CpuState* s, Decoded* d) => Set(s, d, A(s, d) + B(s, d));

    public static ulong Sub(CpuState* s, Decoded* d) => Set(s, d, A(s, d) - B(s, d));

    public static ulong Sll(CpuState* s, Decoded* d) => Set(s, d, A(s, d) << (int)(B(s, d) & 63));

    public static ulong Slt(CpuState* s, Decoded* d) => Set(s, d, (long)A(s, d) < (long)B(s, d) ? 1UL : 0);

    public static ulong Sltu(CpuState* s, Decoded* d) => Set(s, d, A(s, d) < B(s, d) ? 1UL : 0);

    public static ulong Xor(CpuState* s, Decoded* d) => Set(s, d, A(s, d) ^ B(s, d));

    public static ulong Srl(CpuState* s, Decoded* d) => Set(s, d, A(s, d) >> (int)(B(s, d) & 63));

    public static ulong Sra(CpuState* s, Decoded* d) => Set(s, d, (ulong)((long)A(s, d) >> (int)(B(s, d) & 63)));

    public static ulong Or(CpuState* s, Decoded* d) => Set(s, d, A(s, d) | B(s, d));

    public static ulong And(CpuState* s, Decoded* d) => Set(s, d, A(s, d) & B(s, d));

    public static ulong Addiw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) + d->Imm);

    public static ulong Slliw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) << d->Imm);

    public static ulong Srliw(CpuState* s, Decoded* d) => SetW(s, d, (int)((uint)A(s, d) >> d->Imm));

    public static ulong Sraiw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) >> d->Imm);

    public static ulong Addw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) + (int)B(s, d));

    public static ulong Subw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) - (int)B(s, d));

    public static ulong Sllw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) << (int)(B(s, d) & 31));

    public static ulong Srlw(CpuState* s, Decoded* d) => SetW(s, d, (int)((uint)A(s, d) >> (int)(B(s, d) & 31)));

    public static ulong Sraw(CpuState* s, Decoded* d) => SetW(s, d, (int)A(s, d) >> (int)(B(s, d) & 31));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong A(CpuState* s, Decoded* d) => s->X[d->Rs1];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong B(CpuState* s, Decoded* d) => s->X[d->Rs2];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong I(Decoded* d) => (ulong)d->Imm;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong Set(CpuState* s, Decoded* d, ulong value)
    {
        s->X[d->Rd] = value;
        return d->Pc + 4;
    }

    /// <summary>Results of 32 bits are sign-extended, whatever they mean.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ulong SetW(CpuState* s, Decoded* d, int value) => Set(s, d, (ulong)value);
}
