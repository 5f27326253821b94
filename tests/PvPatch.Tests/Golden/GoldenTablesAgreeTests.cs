using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>What must hold inside the golden tables and between them, before anything is measured with them.</summary>
public sealed class GoldenTablesAgreeTests
{
    private static readonly string[] s_actions =
        ["Trap", "Nop", "Identity", "Inline", "Jump", "Call", "CallBug", "ThunkCall"];

    private static readonly string[] s_reasons =
        ["TooSmall", "ClobbersTooMuch", "OutOfReach", "NotACall", "NeedsStack", "BackendDeclines", "RulesDecline"];

    [Fact]
    public void Original_and_expected_bytes_fill_the_budget()
    {
        foreach (GoldenRow row in GoldenTable.Load("decisions.txt").Rows)
        {
            (byte[] original, byte[] expected) = Sides(row);
            int budget = row.Int32("budget");
            Assert.True(original.Length == budget && expected.Length == budget, row.ToString());
        }
    }

    [Fact]
    public void A_site_left_alone_keeps_its_bytes_and_every_action_is_a_known_one()
    {
        foreach (GoldenRow row in GoldenTable.Load("decisions.txt").Rows)
        {
            (byte[] original, byte[] expected) = Sides(row);
            string action = row["action"];
            if (action == "Stop" || s_reasons.Any(reason => action == $"LeaveAlone({reason})"))
            {
                Assert.True(original.AsSpan().SequenceEqual(expected), row.ToString());
            }
            else
            {
                Assert.True(s_actions.Contains(action), row.ToString());
            }
        }
    }

    [Fact]
    public void A_site_turned_into_nothing_holds_the_nops_of_its_family()
    {
        var nops = GoldenTable.Load("nops.txt").Rows.ToDictionary(
            row => (row["family"], row.Int32("bits"), row.Int32("length")),
            row => row.Bytes("bytes"));
        int compared = 0;
        foreach (GoldenRow row in GoldenTable.Load("decisions.txt").Rows.Where(row => row["action"] == "Nop"))
        {
            byte[] fill = nops[(row["nops"], row.Int32("bits"), row.Int32("budget"))];
            Assert.True(fill.AsSpan().SequenceEqual(Sides(row).Expected), row.ToString());
            compared++;
        }

        Assert.True(compared > 20, $"only {compared} cases");
    }

    [Fact]
    public void Nops_are_as_long_as_they_say()
    {
        foreach (GoldenRow row in GoldenTable.Load("nops.txt").Rows)
        {
            Assert.True(row.Bytes("bytes").Length == row.Int32("length"), row.ToString());
        }
    }

    [Fact]
    public void No_two_sites_of_one_bitness_overlap()
    {
        foreach (IGrouping<int, GoldenRow> group in GoldenTable.Load("decisions.txt").Rows.GroupBy(row => row.Int32("bits")))
        {
            ulong end = 0;
            foreach (GoldenRow row in group.OrderBy(row => row.Number("site")))
            {
                Assert.True(row.Number("site") >= end, row.ToString());
                end = row.Number("site") + row.Number("budget");
            }
        }
    }

    [Fact]
    public void A_body_said_to_be_single_is_one_instruction_and_no_other_is()
    {
        foreach (GoldenRow row in GoldenTable.Load("bodies.txt").Rows)
        {
            int instructions = CapstoneReader.Disassemble(row.Bytes("bytes"), row.OptionalNumber("site") ?? 0x1000, row.Int32("bits"))
                .Count;
            Assert.True((row["single"] == "yes") == (instructions == 1), row.ToString());
        }
    }

    [Theory]
    [InlineData("decisions.txt")]
    [InlineData("nops.txt")]
    [InlineData("bodies.txt")]
    public void Every_case_decodes_to_whole_instructions_that_end_at_its_end(string table)
    {
        foreach (GoldenRow row in GoldenTable.Load(table).Rows)
        {
            byte[] code = GoldenTablesAssembleTests.ExpectedBytes(row);
            ulong address = row.Has("site") ? row.OptionalNumber("site") ?? 0x1000 : 0x1000;
            CapstoneReader.AssertWholeInstructions(code, address, row.Int32("bits"), row.Place);
        }
    }

    private static (byte[] Original, byte[] Expected) Sides(GoldenRow row)
    {
        string[] sides = row["original -> expected"].Split("->", StringSplitOptions.TrimEntries);
        return (row.ParseBytes(sides[0]), row.ParseBytes(sides[1]));
    }
}
