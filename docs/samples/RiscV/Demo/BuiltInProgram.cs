using RiscV.Host;
using RiscV.Isa;

namespace RiscV.Demo;

/// <summary>
/// A guest made at run time, so that the sample needs no compiler: a sieve of Eratosthenes over bytes, then a checksum over the sieve in
/// words, several times. Loads, stores and branches are about half of what it executes, as in most programs.
/// </summary>
internal static class BuiltInProgram
{
    private const int Sieve = 0x100000; // behind the code, inside RAM
    private const int A0 = 10;
    private const int A1 = 11;
    private const int A2 = 12;
    private const int A7 = 17;
    private const int T0 = 5;
    private const int T1 = 6;
    private const int T2 = 7;
    private const int S0 = 8;
    private const int S1 = 9;
    private const int S2 = 18;
    private const int S3 = 19;
    private const int S4 = 20;

    /// <summary>Makes the program.</summary>
    /// <param name="limit">Numbers in the sieve, a multiple of eight.</param>
    /// <param name="rounds">How often to do it all.</param>
    public static GuestImage Create(int limit = 200_000, int rounds = 60)
    {
        var a = new GuestAssembler();
        a.Li(S0, Sieve);
        a.Li(S1, limit);
        a.Li(S2, rounds);
        a.I(Op.Addi, S3, 0, 0); // checksum
        int round = a.Here();
        EmitClear(a);
        EmitSieve(a);
        EmitCheck(a);
        a.I(Op.Addi, S2, S2, -1);
        a.Branch(Op.Bne, S2, 0, round);
        EmitPrint(a);
        a.I(Op.Andi, A0, S3, 0x7f);
        a.I(Op.Addi, A7, 0, 93); // exit
        a.Ecall();
        return GuestImage.OfCode(a.ToArray());
    }

    private static void EmitClear(GuestAssembler a)
    {
        a.I(Op.Addi, T0, S0, 0);
        a.R(Op.Add, T1, S0, S1);
        int loop = a.Here();
        a.S(Op.Sd, 0, T0, 0);
        a.I(Op.Addi, T0, T0, 8);
        a.Branch(Op.Bltu, T0, T1, loop);
    }

    private static void EmitSieve(GuestAssembler a)
    {
        int next = a.NewLabel();
        int done = a.NewLabel();
        a.I(Op.Addi, T0, 0, 2);
        a.I(Op.Addi, S4, 0, 1);
        int number = a.Here();
        a.R(Op.Mul, T1, T0, T0);
        a.Branch(Op.Bgeu, T1, S1, done);
        a.R(Op.Add, T2, S0, T0);
        a.I(Op.Lbu, A0, T2, 0);
        a.Branch(Op.Bne, A0, 0, next);
        int multiple = a.Here();
        a.R(Op.Add, T2, S0, T1);
        a.S(Op.Sb, S4, T2, 0);
        a.R(Op.Add, T1, T1, T0);
        a.Branch(Op.Bltu, T1, S1, multiple);
        a.Mark(next);
        a.I(Op.Addi, T0, T0, 1);
        a.Jal(0, number);
        a.Mark(done);
    }

    /// <summary>checksum = checksum * 31 + word, over the sieve in words of four bytes.</summary>
    private static void EmitCheck(GuestAssembler a)
    {
        a.I(Op.Addi, T0, S0, 0);
        a.R(Op.Add, T1, S0, S1);
        int loop = a.Here();
        a.I(Op.Lw, A0, T0, 0);
        a.I(Op.Slli, T2, S3, 5);
        a.R(Op.Sub, T2, T2, S3);
        a.R(Op.Add, S3, T2, A0);
        a.I(Op.Addi, T0, T0, 4);
        a.Branch(Op.Bltu, T0, T1, loop);
    }

    /// <summary>The checksum in hexadecimal, put together from its end.</summary>
    private static void EmitPrint(GuestAssembler a)
    {
        int small = a.NewLabel();
        a.I(Op.Addi, T0, S0, 16);
        a.I(Op.Addi, T1, 0, '\n');
        a.S(Op.Sb, T1, T0, 0);
        a.I(Op.Addi, T1, S3, 0);
        int loop = a.Here();
        a.I(Op.Addi, T0, T0, -1);
        a.I(Op.Andi, T2, T1, 15);
        a.I(Op.Slti, A0, T2, 10);
        a.I(Op.Addi, T2, T2, '0');
        a.Branch(Op.Bne, A0, 0, small);
        a.I(Op.Addi, T2, T2, 'a' - '0' - 10);
        a.Mark(small);
        a.S(Op.Sb, T2, T0, 0);
        a.I(Op.Srli, T1, T1, 4);
        a.Branch(Op.Bne, T0, S0, loop);
        a.I(Op.Addi, A0, 0, 1);
        a.I(Op.Addi, A1, S0, 0);
        a.I(Op.Addi, A2, 0, 17);
        a.I(Op.Addi, A7, 0, 64); // write
        a.Ecall();
    }
}
