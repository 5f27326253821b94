using System.Runtime.InteropServices;
using RiscV.Demo;
using RiscV.Host;
using RiscV.Interpreter;
using RiscV.Isa;
using RiscV.Patching;
using RiscV.Translator;

namespace PvPatch.Samples.Tests;

/// <summary>What each backend is for.</summary>
public sealed unsafe class BackendTests
{
    private static readonly GuestImage s_program = BuiltInProgram.Create(limit: 20_000, rounds: 2);

    [Theory]
    [MemberData(nameof(Engines.BackendNames), MemberType = typeof(Engines))]
    public void a_program_gives_the_same_on_every_backend(string backend)
    {
        RunRecord expected = Engines.Run(Engines.Interpreter, s_program);
        Assert.Equal(StopReason.Exited, expected.Stop);
        Assert.NotEmpty(expected.Output);
        Assert.Equal(expected, Engines.Run(backend, s_program));
    }

    [Fact]
    public void traced_reports_every_access_in_order()
    {
        var expected = new AccessCounter();
        var found = new AccessCounter();
        Engines.Run(Engines.Interpreter, s_program, expected);
        Engines.Run("traced", s_program, found);
        Assert.True(expected[Op.Sb] > 0 && expected[Op.Lw] > 0);
        foreach (Op op in GuestOps.Accesses)
        {
            Assert.Equal(expected[op], found[op]);
        }

        Assert.Equal(expected.Checksum, found.Checksum);
    }

    [Theory]
    [InlineData("fast")]
    [InlineData("checked")]
    [InlineData("profiled")]
    public void the_others_report_nothing(string backend)
    {
        var counter = new AccessCounter();
        Engines.Run(backend, s_program, counter);
        Assert.Equal(0, counter.Total);
    }

    [Fact]
    public void profiled_counts_every_access_and_every_block()
    {
        var expected = new AccessCounter();
        Engines.Run(Engines.Interpreter, s_program, expected);
        using var guest = new Guest(s_program);
        using var engine = (TranslatorEngine)Engines.Create("profiled", guest);
        guest.Run(engine);
        foreach (Op op in GuestOps.Accesses)
        {
            Assert.Equal((ulong)expected[op], guest.Cpu->Counters[ProfiledBackend.CounterOf(op)]);
        }

        Dictionary<ulong, long> executed = CountByStepping();
        Assert.True(engine.Profile.Counts.Count >= 15, $"{engine.Profile.Counts.Count} blocks");
        Assert.All(engine.Profile.Counts, b => Assert.Equal(executed[b.Key], b.Value));
        Assert.Equal(1, engine.Profile.Counts[s_program.Entry]);
    }

    [Fact]
    public void an_exception_in_an_observer_reaches_the_caller_of_run()
    {
        using var guest = new Guest(s_program);
        using var engine = new TranslatorEngine(guest, new Thrower());
        engine.Switch(engine.Backends.Traced);
        Assert.Equal("from the observer", Assert.Throws<InvalidOperationException>(() => guest.Run(engine)).Message);
    }

    [Fact]
    public void a_guest_that_loops_for_ever_is_stopped_by_its_timer_and_can_go_on()
    {
        var a = new GuestAssembler();
        int loop = a.Here();
        a.I(Op.Addi, 10, 10, 1);
        a.Jal(0, loop);
        using var guest = new Guest(GuestImage.OfCode(a.ToArray()));
        using var engine = new TranslatorEngine(guest);
        Assert.Equal(StopReason.OutOfTicks, guest.Run(engine, 1001));
        Assert.Equal(500UL, guest.Cpu->X[10]); // blocks of two; one instruction is left of the allowance
        Assert.Equal(1000, guest.Instructions);
        Assert.Equal(StopReason.OutOfTicks, guest.Run(engine, 1000));
        Assert.Equal(1000UL, guest.Cpu->X[10]);
    }

    /// <summary>How often the instruction at each address is executed.</summary>
    private static Dictionary<ulong, long> CountByStepping()
    {
        var counts = new Dictionary<ulong, long>();
        using var guest = new Guest(s_program);
        using var engine = new InterpreterEngine(guest);
        do
        {
            CollectionsMarshal.GetValueRefOrAddDefault(counts, guest.Cpu->Pc, out _)++;
        }
        while (guest.Run(engine, 1) == StopReason.OutOfTicks);
        return counts;
    }

    private sealed class Thrower : IAccessObserver
    {
        public void Access(ulong pc, Op op, ulong address) => throw new InvalidOperationException("from the observer");
    }
}
