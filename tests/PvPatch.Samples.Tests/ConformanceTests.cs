using RiscV.Host;
using RiscV.Isa;
using static PvPatch.Samples.Tests.ConformanceCase;

namespace PvPatch.Samples.Tests;

/// <summary>Every instruction by the golden table, on the interpreter and on every backend.</summary>
public sealed class ConformanceTests
{
    [Fact]
    public void the_table_has_every_instruction_that_has_a_result()
    {
        IEnumerable<Op> without = [Op.Illegal, Op.Fence, Op.FenceI, Op.Ecall, Op.Ebreak];
        Assert.Empty(Enum.GetValues<Op>().Except(without).Except(All.Select(static c => c.Op)));
    }

    [Theory]
    [MemberData(nameof(Engines.AllNames), MemberType = typeof(Engines))]
    public void every_case_gives_what_the_specification_says(string engine)
    {
        using var bench = new InstructionBench(engine, [.. All.Select(ToInstruction)]);
        for (int i = 0; i < All.Count; i++)
        {
            // checked stops at a misaligned access, which is what its own tests are about.
            if (engine != "checked" || !IsMisaligned(All[i]))
            {
                Check(bench, i, All[i]);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Engines.AllNames), MemberType = typeof(Engines))]
    public void results_are_the_same_where_source_and_destination_are_one_register_and_x0_stays_zero(string engine)
    {
        ConformanceCase[] cases = [
            .. All.Where(static c => c.Format is Format.R or Format.I or Format.Shift && c.Op is not Op.Jalr && !IsAccess(c.Op))];
        foreach (byte rd in new byte[] { InstructionBench.Rs1, InstructionBench.Rs2, 0 })
        {
            using var bench = new InstructionBench(engine, [.. cases.Select(c => ToInstruction(c) with { Rd = rd })]);
            for (int i = 0; i < cases.Length; i++)
            {
                SetSources(bench, cases[i]);
                Assert.Equal(StopReason.Ebreak, bench.Run(i));
                Assert.True(bench[rd] == (rd == 0 ? 0 : Hex(cases[i].Expected)), $"{cases[i]}, rd = x{rd}: {bench[rd]:x16}");
            }
        }
    }

    private static bool IsAccess(Op op) => op is >= Op.Lb and <= Op.Sd;

    private static bool IsMisaligned(ConformanceCase c) => IsAccess(c.Op) && Number(c.Second) % GuestMemory.Width(c.Op) != 0;

    private static Instruction ToInstruction(ConformanceCase c)
    {
        int imm = c.Format switch
        {
            Format.R => 0,
            Format.B => 8,
            _ => Number(c.Second),
        };
        return new Instruction(c.Op, InstructionBench.Rd, InstructionBench.Rs1, InstructionBench.Rs2, imm);
    }

    private static void SetSources(InstructionBench bench, ConformanceCase c)
    {
        bench.Reset();
        bench[InstructionBench.Rs1] = Hex(c.First);
        bench[InstructionBench.Rs2] = c.Format is Format.R or Format.B ? Hex(c.Second) : 0;
    }

    private static void Check(InstructionBench bench, int index, ConformanceCase c)
    {
        switch (c.Format)
        {
            case Format.U:
                bench.Reset();
                Expect(c, StopReason.Ebreak, bench.Run(index));
                Expect(c, Hex(c.Expected), bench[InstructionBench.Rd] - (c.Op == Op.Auipc ? bench.AddressOf(index) : 0));
                break;
            case Format.J or Format.I when c.Op is Op.Jal or Op.Jalr:
                CheckJump(bench, index, c);
                break;
            case Format.B:
                SetSources(bench, c);
                Expect(c, StopReason.Ebreak, bench.Run(index));
                Expect(c, c.Expected == "taken" ? 8UL : 4, bench.Pc - bench.AddressOf(index));
                break;
            case Format.I or Format.S when IsAccess(c.Op):
                CheckAccess(bench, index, c);
                break;
            default:
                SetSources(bench, c);
                Expect(c, StopReason.Ebreak, bench.Run(index));
                Expect(c, Hex(c.Expected), bench[InstructionBench.Rd]);
                Expect(c, Hex(c.First), bench[InstructionBench.Rs1]);
                break;
        }
    }

    private static void CheckJump(InstructionBench bench, int index, ConformanceCase c)
    {
        ulong start = bench.AddressOf(index);
        bench.Reset();
        bench[InstructionBench.Rd] = 0x5555;
        bench[InstructionBench.Rs1] = c.First == "-" ? 0 : start + (ulong)Number(c.First);
        bool stops = c.Expected == "misaligned";
        Expect(c, stops ? StopReason.FetchMisaligned : StopReason.Ebreak, bench.Run(index));
        Expect(c, start + (stops ? 0 : (ulong)Number(c.Expected)), bench.Pc);
        Expect(c, stops ? 0x5555 : start + 4, bench[InstructionBench.Rd]);
    }

    private static void CheckAccess(InstructionBench bench, int index, ConformanceCase c)
    {
        bool load = c.Op <= Op.Lwu;
        bench.Reset();
        bench[InstructionBench.Rs1] = InstructionBench.Data;
        bench.DataWords = load ? [.. c.First.Split(' ').Select(Hex)] : [0xa5a5a5a5a5a5a5a5, 0xa5a5a5a5a5a5a5a5];
        bench[InstructionBench.Rs2] = load ? 0 : Hex(c.First);
        Expect(c, StopReason.Ebreak, bench.Run(index));
        if (load)
        {
            Expect(c, Hex(c.Expected), bench[InstructionBench.Rd]);
        }
        else
        {
            Expect(c, c.Expected, string.Join(' ', bench.DataWords.Select(static w => $"{w:x16}")));
        }
    }

    private static void Expect<T>(ConformanceCase c, T expected, T actual) =>
        Assert.True(EqualityComparer<T>.Default.Equals(expected, actual), $"{c}: expected {expected}, found {actual}");
}
