using PvPatch.Tests.Shared;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Isa;

namespace PvPatch.Samples.Tests;

/// <summary>
/// Random programs: the translator, which shares only the decoder with the interpreter, must leave the same registers, memory and count of
/// instructions.
/// </summary>
public sealed class DifferentialTests
{
    private const ulong RamSize = 4 << 20;
    private static readonly ulong[] s_edges = [
        0, 1, ulong.MaxValue, 0x7fffffff, 0x80000000, 1UL << 63, 0x8000000080000000, 0x123456789abcdef0];

    [Theory]
    [MemberData(nameof(Engines.BackendNames), MemberType = typeof(Engines))]
    public void random_programs_leave_what_the_interpreter_leaves(string backend)
    {
        Random seeds = TestSeed.NewRandom();
        for (int i = 0; i < 40; i++)
        {
            int seed = seeds.Next();
            GuestImage image = RandomProgram.Create(seed);
            RunRecord expected = Engines.Run(Engines.Interpreter, image, ramSize: RamSize);
            Assert.Equal(StopReason.Ebreak, expected.Stop);
            Assert.True(expected.Instructions > 1000, $"seed {seed}: {expected.Instructions} instructions");
            RunRecord found = Engines.Run(backend, image, ramSize: RamSize);
            Assert.True(expected == found, $"seed {seed}:\n{expected}\n{found}");
        }
    }

    /// <summary>
    /// The translator leaves a sign extension out where it believes the value to be a sign-extended word: after each instruction, at its
    /// edges.
    /// </summary>
    [Theory]
    [MemberData(nameof(Engines.BackendNames), MemberType = typeof(Engines))]
    public void what_is_extended_after_an_instruction_is_what_the_interpreter_extends(string backend)
    {
        foreach (ulong first in s_edges)
        {
            foreach (ulong second in s_edges)
            {
                GuestImage image = Extending();
                Assert.Equal(Run(Engines.Interpreter, image, first, second), Run(backend, image, first, second));
            }
        }
    }

    private static RunRecord Run(string name, GuestImage image, ulong first, ulong second)
    {
        using var guest = new Guest(image, RamSize);
        unsafe
        {
            guest.Cpu->X[10] = first;
            guest.Cpu->X[11] = second;
        }

        IEngine engine = Engines.Create(name, guest);
        using var disposable = (IDisposable)engine;
        return RunRecord.Of(guest, engine);
    }

    /// <summary>Every operation on x10 and x11, each followed by sext.w, whose result is kept in memory.</summary>
    private static GuestImage Extending()
    {
        var a = new GuestAssembler();
        a.Li(8, 0x200000);
        foreach (Op op in Enum.GetValues<Op>().Where(static o => o is (>= Op.Addi and <= Op.Remuw) or (>= Op.Lb and <= Op.Lwu) or Op.Lui))
        {
            bool access = op is >= Op.Lb and <= Op.Lwu;
            int[] constants = access ? [0]
                : IsaTable.Of(op).Format switch
                {
                    Format.I => [-2048, -1, 0, 1, 2047],
                    Format.Shift => op >= Op.Addiw ? [0, 1, 31] : [0, 1, 31, 32, 33, 63],
                    Format.U => [0, int.MinValue, 0x7ffff000],
                    _ => [0],
                };
            foreach (int constant in constants)
            {
                a.S(Op.Sd, 10, 8, 0); // what is loaded
                a.Emit(new Instruction(op, 12, access ? (byte)8 : (byte)10, 11, constant));
                a.I(Op.Addiw, 13, 12, 0);
                a.S(Op.Sd, 13, 8, 0);
                a.I(Op.Addi, 8, 8, 8);
                a.R(Op.Xor, 12, 12, 11);
                a.I(Op.Addiw, 13, 12, 0);
                a.S(Op.Sd, 13, 8, 0);
                a.I(Op.Addi, 8, 8, 8);
            }
        }

        a.Emit(new Instruction(Op.Ebreak, 0, 0, 0, 0));
        return GuestImage.OfCode(a.ToArray());
    }
}
