using RiscV.Demo;
using RiscV.Host;
using RiscV.Isa;

namespace PvPatch.Samples.Tests;

/// <summary>The system calls, by what a guest gets back.</summary>
public sealed unsafe class SyscallTests
{
    private const ulong BadAddress = unchecked((ulong)-14);
    private const ulong NotImplemented = unchecked((ulong)-38);
    private const int Write = 64;
    private const int Brk = 214;

    [Theory]
    [InlineData(Write, 0x10000, 4, 4UL)]
    [InlineData(Write, 0x10000, -1, BadAddress)]
    [InlineData(Write, 0xffff, 4, BadAddress)]
    [InlineData(Write, 0x10000 + (int)Guest.DefaultRamSize - 2, 4, BadAddress)]
    [InlineData(63, 0, 0, NotImplemented)]
    public void a_call_answers_as_linux_does(int number, int second, int third, ulong expected) =>
        Assert.Equal(expected, Call(number, 1, second, third));

    [Fact]
    public void brk_moves_within_ram_and_says_where_it_is()
    {
        ulong heap = Call(Brk, 0, 0, 0);
        Assert.InRange(heap, 0x10004UL, 0x11000UL);
        Assert.Equal(0x20000UL, Call(Brk, 0x20000, 0, 0));
        Assert.Equal(heap, Call(Brk, 0x7fffffff, 0, 0));
    }

    [Fact]
    public void the_tour_finds_all_results_equal()
    {
        using var output = new StringWriter();
        Assert.True(new Tour(BuiltInProgram.Create(limit: 4000, rounds: 2), output).Run(), output.ToString());
        Assert.Contains("All results are equal.", output.ToString(), StringComparison.Ordinal);
    }

    private static ulong Call(int number, int first, int second, int third)
    {
        var a = new GuestAssembler();
        a.Li(17, number);
        a.Li(10, first);
        a.Li(11, second);
        a.Li(12, third);
        a.Ecall();
        a.Emit(new Instruction(Op.Ebreak, 0, 0, 0, 0));
        using var guest = new Guest(GuestImage.OfCode(a.ToArray()));
        using var engine = (IDisposable)Engines.Create("fast", guest);
        Assert.Equal(StopReason.Ebreak, guest.Run((IEngine)engine, 100));
        Assert.Equal(9, guest.Instructions);
        return guest.Cpu->X[10];
    }
}
