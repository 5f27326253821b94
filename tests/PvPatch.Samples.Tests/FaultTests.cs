using RiscV.Host;
using RiscV.Isa;

namespace PvPatch.Samples.Tests;

/// <summary>What stops a guest stops it at the very instruction, with everything before it done and nothing behind it.</summary>
public sealed unsafe class FaultTests
{
    private const ulong RamEnd = 0x10000 + Guest.DefaultRamSize;

    public static TheoryData<string, ulong, string> Faults => new()
    {
        { "Ld", RamEnd - 7, "LoadFault" },
        { "Ld", RamEnd, "LoadFault" },
        { "Lb", RamEnd, "LoadFault" },
        { "Lw", 0xfffc, "LoadFault" },
        { "Lbu", 0, "LoadFault" },
        { "Lhu", ulong.MaxValue - 1, "LoadFault" },
        { "Lb", 0x1_0001_0000, "LoadFault" },
        { "Sd", RamEnd, "StoreFault" },
        { "Sb", 0xffff, "StoreFault" },
        { "Sw", 0x8000_0000_0001_0000, "StoreFault" },
        { "Lh", 0x20001, "LoadMisaligned" },
        { "Lw", 0x20002, "LoadMisaligned" },
        { "Ld", 0x20004, "LoadMisaligned" },
        { "Sh", 0x20003, "StoreMisaligned" },
        { "Sw", 0x20001, "StoreMisaligned" },
        { "Sd", 0x20001, "StoreMisaligned" },
    };

    [Theory]
    [MemberData(nameof(Faults))]
    public void checked_stops_at_the_access(string op, ulong address, string reason) =>
        CheckStop("checked", Enum.Parse<Op>(op), address, Enum.Parse<StopReason>(reason));

    [Theory]
    [MemberData(nameof(Faults))]
    public void the_interpreter_stops_outside_ram_as_checked_does(string op, ulong address, string reason)
    {
        if (reason.EndsWith("Fault", StringComparison.Ordinal))
        {
            CheckStop(Engines.Interpreter, Enum.Parse<Op>(op), address, Enum.Parse<StopReason>(reason));
        }
    }

    [Theory]
    [InlineData("Ld", RamEnd - 8)]
    [InlineData("Sd", RamEnd - 8)]
    [InlineData("Lb", RamEnd - 1)]
    [InlineData("Sb", RamEnd - 1)]
    [InlineData("Lw", 0x10000UL)]
    public void checked_lets_the_first_and_last_bytes_of_ram_pass(string op, ulong address) =>
        CheckStop("checked", Enum.Parse<Op>(op), address, StopReason.Ebreak);

    [Theory]
    [InlineData("Lb", 0UL)]
    [InlineData("Ld", 0xffff_fffcUL)]
    [InlineData("Sd", 0xffff_fff9UL)]
    [InlineData("Sd", 0x7fff_1234_0000_0000UL)]
    public void fast_cant_leave_the_window_whatever_the_address(string op, ulong address) =>
        CheckStop("fast", Enum.Parse<Op>(op), address, StopReason.Ebreak);

    [Theory]
    [MemberData(nameof(Engines.AllNames), MemberType = typeof(Engines))]
    public void an_illegal_instruction_stops_in_the_middle_of_a_block(string engine)
    {
        byte[] code = [.. Bytes(new Instruction(Op.Addi, 10, 0, 0, 5)), .. new byte[4], .. Bytes(new Instruction(Op.Addi, 10, 0, 0, 6))];
        Check(engine, code, StopReason.Illegal, pc: 0x10004, instructions: 1, x10: 5);
    }

    [Theory]
    [MemberData(nameof(Engines.AllNames), MemberType = typeof(Engines))]
    public void leaving_the_code_is_a_fetch_fault_at_the_target(string engine)
    {
        var a = new GuestAssembler();
        a.Li(10, 0x40000);
        a.I(Op.Jalr, 1, 10, 4);
        Check(engine, a.ToArray(), StopReason.FetchFault, pc: 0x40004, instructions: 3, x10: 0x40000);
        Check(engine, Bytes(new Instruction(Op.Addi, 10, 0, 0, 7)), StopReason.FetchFault, pc: 0x10004, instructions: 1, x10: 7);
        Check(engine, [.. Bytes(new Instruction(Op.Addi, 10, 0, 0, 7)), .. Bytes(new Instruction(Op.Jal, 1, 0, 0, -0x8000))],
            StopReason.FetchFault, pc: 0x8004, instructions: 2, x10: 7);
    }

    private static void CheckStop(string engine, Op op, ulong address, StopReason reason)
    {
        var a = new GuestAssembler();
        a.I(Op.Addi, 10, 0, 1);
        a.Emit(new Instruction(op, 12, 11, 13, 0));
        a.I(Op.Addi, 10, 0, 2);
        a.Emit(new Instruction(Op.Ebreak, 0, 0, 0, 0));
        using var guest = new Guest(GuestImage.OfCode(a.ToArray()));
        guest.Cpu->X[11] = address;
        guest.Cpu->X[12] = 0x1212;
        guest.Cpu->X[13] = 0x1313;
        IEngine made = Engines.Create(engine, guest);
        using var disposable = (IDisposable)made;
        Assert.Equal(reason, guest.Run(made, 100));
        bool passed = reason == StopReason.Ebreak;
        Assert.Equal(passed ? 0x1000cUL : 0x10004UL, guest.Cpu->Pc);
        Assert.Equal(passed ? 3 : 1, guest.Instructions);
        Assert.Equal(passed ? 2UL : 1, guest.Cpu->X[10]);
        if (!passed)
        {
            Assert.Equal(address, guest.Cpu->FaultAddress);
            Assert.Equal(0x1212UL, guest.Cpu->X[12]);
        }
    }

    private static void Check(string engine, byte[] code, StopReason reason, ulong pc, long instructions, ulong x10)
    {
        using var guest = new Guest(GuestImage.OfCode(code));
        IEngine made = Engines.Create(engine, guest);
        using var disposable = (IDisposable)made;
        Assert.Equal(reason, guest.Run(made, 100));
        Assert.Equal(pc, guest.Cpu->Pc);
        Assert.Equal(instructions, guest.Instructions);
        Assert.Equal(x10, guest.Cpu->X[10]);
    }

    private static byte[] Bytes(Instruction instruction) => BitConverter.GetBytes(Encoder.Encode(instruction));
}
