using PvPatch.Live;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Isa;
using RiscV.Translator;

namespace PvPatch.Samples.Tests;

/// <summary>A guest that changes its own code and says so with fence.i.</summary>
public sealed unsafe class ChangedCodeTests
{
    private const ulong Start = 0x10000;
    private const int Sum = 10;
    private const int Address = 11;
    private const int Rounds = 12;
    private const int Word = 13;
    private const int One = 14;

    [Theory]
    [MemberData(nameof(Engines.AllNames), MemberType = typeof(Engines))]
    public void behind_a_fence_the_new_code_runs(string name)
    {
        using var guest = new Guest(Adder(100));
        IEngine engine = Engines.Create(name, guest);
        using var disposable = (IDisposable)engine;
        Assert.Equal(StopReason.Ebreak, guest.Run(engine));
        Assert.Equal(5050UL, guest.Cpu->X[Sum]); // 1 + 2 + ... + 100
        Assert.Equal(6 + 100 * 7, guest.Instructions);
    }

    [Fact]
    public void only_regions_whose_code_changed_are_retired_and_their_room_is_used_again()
    {
        using var guest = new Guest(Adder(1000));
        using var engine = new TranslatorEngine(guest);
        guest.Run(engine, 6 + 7 * 10);
        CodeBlock[] before = [.. engine.Arena.Blocks];
        long used = engine.Arena.Used;
        int translated = engine.RegionCount;
        guest.Run(engine, 7 * 500);
        Assert.Equal(500, engine.RegionCount - translated);
        Assert.Equal(before.Length, engine.Arena.Blocks.Count);
        Assert.Single(before.Except(engine.Arena.Blocks));
        Assert.Equal(used, engine.Arena.Used);
        Assert.Equal(StopReason.Ebreak, guest.Run(engine));
        Assert.Equal(500500UL, guest.Cpu->X[Sum]);
    }

    [Fact]
    public void a_fence_behind_which_nothing_changed_retires_nothing()
    {
        var a = new GuestAssembler();
        a.I(Op.Addi, Rounds, 0, 50);
        int loop = a.Here();
        a.Emit(new Instruction(Op.FenceI, 0, 0, 0, 0));
        a.I(Op.Addi, Rounds, Rounds, -1);
        a.Branch(Op.Bne, Rounds, 0, loop);
        a.Emit(new Instruction(Op.Ebreak, 0, 0, 0, 0));
        using var guest = new Guest(GuestImage.OfCode(a.ToArray()));
        using var engine = new TranslatorEngine(guest);
        Assert.Equal(StopReason.Ebreak, guest.Run(engine));
        Assert.Equal(2, engine.RegionCount); // up to the fence, and what follows it, with the fence as a branch's target
    }

    [Theory]
    [MemberData(nameof(Engines.AllNames), MemberType = typeof(Engines))]
    public void a_fence_at_the_end_of_the_code_and_of_the_allowance_stops_behind_it(string name)
    {
        byte[] code = [.. new[] { new Instruction(Op.Addi, Sum, 0, 0, 7), new Instruction(Op.FenceI, 0, 0, 0, 0) }.SelectMany(
            static i => BitConverter.GetBytes(Encoder.Encode(i)))];
        using var guest = new Guest(GuestImage.OfCode(code));
        IEngine engine = Engines.Create(name, guest);
        using var disposable = (IDisposable)engine;
        Assert.Equal(StopReason.FetchFault, guest.Run(engine, 2));
        Assert.Equal((Start + 8, 2L, 7UL), (guest.Cpu->Pc, guest.Instructions, guest.Cpu->X[Sum]));
    }

    [Fact]
    public void regions_retired_while_another_thread_switches_are_right()
    {
        GuestImage image = Adder(1500);
        RunRecord expected = Engines.Run(Engines.Interpreter, image);
        for (int i = 0; i < 5; i++)
        {
            using var guest = new Guest(image);
            using var engine = new TranslatorEngine(guest, new AccessCounter());
            using var switcher = new Switcher(engine, TimeSpan.Zero);
            RunRecord found = RunRecord.Of(guest, engine);
            switcher.Stop();
            Assert.Null(switcher.Failure);
            Assert.Equal(expected, found);
        }
    }

    /// <summary>In each round counts up the immediate of an addi that adds to the sum.</summary>
    private static GuestImage Adder(int rounds)
    {
        var a = new GuestAssembler();
        a.Li(Rounds, rounds);
        a.Li(One, 1 << 20); // one, where an immediate is
        a.Li(Address, (int)Start + 10 * 4);
        int loop = a.Here();
        a.I(Op.Lw, Word, Address, 0);
        a.R(Op.Add, Word, Word, One);
        a.S(Op.Sw, Word, Address, 0);
        a.Emit(new Instruction(Op.FenceI, 0, 0, 0, 0));
        Assert.Equal(10 * 4, a.Length);
        a.I(Op.Addi, Sum, Sum, 0);
        a.I(Op.Addi, Rounds, Rounds, -1);
        a.Branch(Op.Bne, Rounds, 0, loop);
        a.Emit(new Instruction(Op.Ebreak, 0, 0, 0, 0));
        return GuestImage.OfCode(a.ToArray());
    }
}
