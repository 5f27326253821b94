using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>What the engine finds out about every body of <c>bodies.txt</c> from its bytes alone.</summary>
public sealed class GoldenBodyTests
{
    private static readonly RegisterSet s_call = RegisterSet.Rbx | RegisterSet.R13; // an unlikely set, to be seen again

    [Fact]
    public void Every_body_destroys_and_uses_what_the_table_says()
    {
        var wrong = new List<string>();
        foreach (GoldenRow row in Bodies())
        {
            AssembledBody body = Build(row);
            RegisterSet expected = body.EndsControlFlow ? RegisterSet.None : Destroyed(row);
            if (body.Destroys != expected || body.UsesStack != (row["stack"] == "yes")
                || (body.InstructionCount == 1) != (row["single"] == "yes"))
            {
                wrong.Add($"{row}: engine destroys {body.Destroys}, stack {body.UsesStack}, {body.InstructionCount} instructions");
            }
        }

        Assert.True(wrong.Count == 0, string.Join(Environment.NewLine, wrong));
    }

    [Fact]
    public void Bodies_without_a_way_out_are_those_that_jump_or_return()
    {
        string[] ending = [.. Bodies().Where(row => Build(row).EndsControlFlow)
            .Select(row => row["assembly"].Split(';')[^1].Trim().Split(' ')[0]).Distinct().Order(StringComparer.Ordinal)];
        Assert.Equal(["int3", "iret", "iretq", "jmp", "ret", "sysexit", "sysexitl", "sysretl", "sysretq"], ending);
    }

    [Fact]
    public void A_body_put_at_its_address_has_the_tables_bytes()
    {
        foreach (GoldenRow row in Bodies())
        {
            byte[] bytes = row.Bytes("bytes");
            CodeTemplate template = CodeTemplate.Create(Build(row), bytes.Length, NopStyle.Default(row.Int32("bits")));
            byte[] written = new byte[bytes.Length];
            Assert.True(template.TryWrite(row.OptionalNumber("site") ?? 0x1000, written), row.ToString());
            Assert.True(written.AsSpan().SequenceEqual(bytes), row.ToString());
            Assert.Equal(row["single"] == "yes", InstructionCount(bytes, row.Int32("bits")) == 1);
        }
    }

    [Fact]
    public void A_body_moved_still_refers_to_the_same_addresses()
    {
        int moved = 0;
        foreach (GoldenRow row in Bodies().Where(row => row["site"] != "-"))
        {
            AssembledBody body = Build(row);
            Assert.NotEmpty(body.Fixups);
            foreach (CodeFixup fixup in body.Fixups)
            {
                Assert.Contains(
                    row["references"].Split(',').Select(reference => row.ParseNumber(reference.Split('=')[1])),
                    known => known == fixup.Target.Value);
            }

            ulong site = row.Number("site");
            ulong elsewhere = site + 0x1230;
            byte[] written = new byte[body.Bytes.Length];
            Assert.True(CodeTemplate.Create(body, written.Length, NopStyle.P6).TryWrite(elsewhere, written));
            Assert.Equal(BranchTargets(row.Bytes("bytes"), site, row), BranchTargets(written, elsewhere, row));
            moved++;
        }

        Assert.True(moved >= 10, $"only {moved}");
    }

    private static IEnumerable<GoldenRow> Bodies() => GoldenTable.Load("bodies.txt").Rows.Where(row => row["bytes"] != "-");

    private static AssembledBody Build(GoldenRow row)
    {
        InlineBody body = InlineBody.FromBytes(row.Bytes("bytes"), row.OptionalNumber("site") ?? 0x1000, s_call);
        Assert.True(BodyBuilder.TryBuild(
            body, CallConvention.CalleeSave, row.Int32("bits"), out AssembledBody? built, out PatchDiagnostic? error), $"{row}: {error}");
        return built!;
    }

    private static int InstructionCount(byte[] code, int bitness)
    {
        var decoder = Decoder.Create(bitness, code);
        int count = 0;
        for (int length = 0; length < code.Length; count++)
        {
            decoder.Decode(out Instruction instruction);
            length += instruction.Length;
        }

        return count;
    }

    private static RegisterSet Destroyed(GoldenRow row)
    {
        RegisterSet set = default;
        foreach (string word in row["destroys"].Split(',').Where(w => w is not ("-" or "if")))
        {
            Assert.True(RegisterSet.TryParse(word == "call" ? s_call.ToString() : word, out RegisterSet one), row.ToString());
            set |= one;
        }

        return set;
    }

    /// <summary>Where direct branches out of the body go, by the second reader's text.</summary>
    private static string[] BranchTargets(byte[] code, ulong address, GoldenRow row) =>
    [
        .. CapstoneReader.Disassemble(code, address, row.Int32("bits"))
            .Select(i => i.Text)
            .Where(t => t.StartsWith("call 0x", StringComparison.Ordinal) || t.StartsWith("jmp 0x", StringComparison.Ordinal)),
    ];
}
