using RiscV.Host;
using RiscV.Isa;

namespace PvPatch.Samples.Tests;

/// <summary>
/// A random program that ends: a loop of random instructions, forward branches among them, loads and stores near a base register, run a few
/// times over. All accesses are aligned, so that every backend does the same.
/// </summary>
internal static class RandomProgram
{
    private const int Base = 8;
    private const int Counter = 31;

    private static readonly Op[] s_plain = [
        .. Enum.GetValues<Op>().Where(static o => o is >= Op.Addi and <= Op.Remuw or Op.Lui or Op.Auipc)];
    private static readonly Op[] s_accesses = [.. Enum.GetValues<Op>().Where(static o => o is >= Op.Lb and <= Op.Sd)];

    public static GuestImage Create(int seed, int length = 300, int rounds = 12)
    {
        var random = new Random(seed);
        var a = new GuestAssembler();
        a.Li(Base, 0x200000);
        a.I(Op.Addi, Counter, 0, rounds);
        for (int i = 9; i < Counter; i++)
        {
            a.Li(i, random.Next(int.MinValue, int.MaxValue));
            a.R(Op.Mul, i, i, 9); // so that the upper halves are not all alike
        }

        int loop = a.Here();
        var pending = new List<(int Label, int At)>();
        for (int i = 0; i < length; i++)
        {
            foreach ((int label, _) in pending.Where(p => p.At == i))
            {
                a.Mark(label);
            }

            Emit(a, random, pending, i, length);
        }

        foreach ((int label, _) in pending.Where(p => p.At >= length))
        {
            a.Mark(label);
        }

        a.I(Op.Addi, Counter, Counter, -1);
        int done = a.NewLabel();
        a.Branch(Op.Beq, Counter, 0, done);
        a.Jal(0, loop); // the loop may be longer than a branch reaches
        a.Mark(done);
        a.Emit(new Instruction(Op.Ebreak, 0, 0, 0, 0));
        return GuestImage.OfCode(a.ToArray());
    }

    private static void Emit(GuestAssembler a, Random random, List<(int Label, int At)> pending, int at, int length)
    {
        int choice = random.Next(100);
        if (choice < 25)
        {
            Op op = s_accesses[random.Next(s_accesses.Length)];
            int offset = random.Next(-16, 16) * GuestMemory.Width(op);
            a.Emit(new Instruction(op, Destination(random), Base, Source(random), offset));
        }
        else if (choice < 33)
        {
            int label = a.NewLabel();
            pending.Add((label, Math.Min(length, at + 1 + random.Next(8))));
            a.Branch((Op)((int)Op.Beq + random.Next(6)), Source(random), Source(random), label);
        }
        else if (choice < 35)
        {
            int label = a.NewLabel();
            pending.Add((label, Math.Min(length, at + 1 + random.Next(8))));
            a.Jal(Destination(random), label);
        }
        else if (choice < 40)
        {
            EmitIndex(a, random);
        }
        else if (choice < 48)
        {
            EmitExtended(a, random);
        }
        else
        {
            a.Emit(Plain(random, s_plain[random.Next(s_plain.Length)]));
        }
    }

    /// <summary>
    /// What compilers make of an index into an array, which the translator takes for one operation; and pairs that look like it.
    /// </summary>
    private static void EmitIndex(GuestAssembler a, Random random)
    {
        byte index = Destination(random);
        byte other = random.Next(6) == 0 ? index : Source(random);
        a.I(Op.Slli, index, random.Next(4) == 0 ? index : Source(random), random.Next(0, 5));
        byte sum = random.Next(6) == 0 ? Destination(random) : index;
        a.R(random.Next(6) == 0 ? Op.Sub : Op.Add, sum, random.Next(2) == 0 ? index : other, random.Next(2) == 0 ? other : index);
    }

    /// <summary>
    /// A result, perhaps combined with another, that is sign-extended from 32 bits: the translator leaves out what does nothing.
    /// </summary>
    private static void EmitExtended(GuestAssembler a, Random random)
    {
        byte value = (byte)random.Next(9, Counter);
        byte other = (byte)random.Next(9, Counter);
        foreach (byte rd in random.Next(2) == 0 ? [value] : new[] { other, value })
        {
            int kind = random.Next(3);
            if (kind == 0)
            {
                bool word = random.Next(2) == 0; // around the counts from which on the result is a word by itself
                a.I(word ? Op.Srliw : Op.Srli, rd, Source(random), random.Next(3) + (word ? 0 : 31));
            }
            else if (kind == 1)
            {
                Op load = s_accesses[random.Next(s_accesses.Length)];
                load = load > Op.Lwu ? Op.Lwu : load;
                a.Emit(new Instruction(load, rd, Base, 0, random.Next(-16, 16) * GuestMemory.Width(load)));
            }
            else
            {
                a.Emit(Plain(random, s_plain[random.Next(s_plain.Length)]) with { Rd = rd });
            }
        }

        if (random.Next(2) == 0)
        {
            a.R((Op)((int)Op.Xor + random.Next(5)), value, value, other);
        }

        a.I(Op.Addiw, Destination(random), value, 0);
    }

    private static Instruction Plain(Random random, Op op)
    {
        int imm = IsaTable.Of(op).Format switch
        {
            Format.I => random.Next(-2048, 2048),
            Format.Shift => random.Next(op >= Op.Addiw ? 32 : 64),
            Format.U => random.Next(int.MinValue, int.MaxValue) & ~0xfff,
            _ => 0,
        };
        return new Instruction(op, Destination(random), Source(random), Source(random), imm);
    }

    // x0 now and then, the base and the counter never.
    private static byte Destination(Random random) => random.Next(12) == 0 ? (byte)0 : (byte)random.Next(9, Counter);

    private static byte Source(Random random) => (byte)random.Next(0, 32);
}
