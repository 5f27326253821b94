using PvPatch.Tests.Shared;
using RiscV.Demo;
using RiscV.Host;

namespace PvPatch.Samples.Tests;

/// <summary>
/// Random programs: the translator, which shares only the decoder with the interpreter, must leave the same registers, memory and count of
/// instructions.
/// </summary>
public sealed class DifferentialTests
{
    private const ulong RamSize = 4 << 20;

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
}
