using RiscV.Isa;

namespace PvPatch.Samples.Tests;

/// <summary>The table of encodings, against itself and against GNU as.</summary>
public sealed class EncodingTests
{
    private static readonly int[] s_immediates = [0, 1, -1, 2047, -2048, 1365];

    [Fact]
    public void what_is_encoded_decodes_to_the_same() =>
        Assert.All(Instructions(), static i => Assert.Equal(i, Canonical(Decoder.Decode(Encoder.Encode(i)))));

    [Fact]
    public void no_word_is_two_instructions()
    {
        foreach (IsaRow a in IsaTable.Rows)
        {
            Assert.DoesNotContain(IsaTable.Rows, b => a != b && (a.Match & a.Mask & b.Mask) == (b.Match & a.Mask & b.Mask));
        }
    }

    [Fact]
    public void words_that_are_no_instruction_are_illegal()
    {
        // zeros, ones, csrrw, flw, fadd.s, lr.w, mret, a load of width 7, and slliw with a count of 32
        foreach (uint word in (uint[])[0, uint.MaxValue, 0x30001073, 0x2007, 0x53, 0x1000202f, 0x30200073, 0x7003, 0x0200101b])
        {
            Assert.Equal(Op.Illegal, Decoder.Decode(word).Op);
        }
    }

    [Theory]
    [InlineData("Addi", 2048)]
    [InlineData("Sd", -2049)]
    [InlineData("Beq", 4096)]
    [InlineData("Beq", 3)]
    [InlineData("Jal", 1 << 20)]
    [InlineData("Slliw", 32)]
    [InlineData("Lui", 1)]
    public void an_immediate_that_does_not_fit_is_refused(string op, int imm) =>
        Assert.Throws<ArgumentException>(() => Encoder.Encode(new Instruction(Enum.Parse<Op>(op), 1, 2, 3, imm)));

    [Fact]
    public void the_assembler_encodes_the_same()
    {
        GuestCompiler.Need();
        Instruction[] all = [.. Instructions()];
        uint[] words = GuestCompiler.Assemble([".option norelax", ".option arch, +zifencei", .. all.Select(ToText)]);
        Assert.Equal(all.Length, words.Length);
        for (int i = 0; i < all.Length; i++)
        {
            Assert.True(words[i] == Encoder.Encode(all[i]), $"{ToText(all[i])}: as {words[i]:x8}, here {Encoder.Encode(all[i]):x8}");
        }
    }

    private static IEnumerable<Instruction> Instructions()
    {
        foreach (IsaRow row in IsaTable.Rows.Where(static r => r.Format != Format.None))
        {
            foreach (int raw in s_immediates)
            {
                int imm = row.Format switch
                {
                    Format.R => 0,
                    Format.Shift => raw & (row.Op >= Op.Addiw ? 31 : 63),
                    Format.B or Format.J => raw * 2,
                    Format.U => raw << 12,
                    _ => raw,
                };
                yield return Canonical(new Instruction(row.Op, 31, 10, 21, imm));
            }
        }

        yield return new Instruction(Op.FenceI, 0, 0, 0, 0);
        yield return new Instruction(Op.Ecall, 0, 0, 0, 0);
        yield return new Instruction(Op.Ebreak, 0, 0, 0, 0);
    }

    /// <summary>Fields that a format does not have are bits of something else; here they are zero.</summary>
    private static Instruction Canonical(Instruction i) => IsaTable.Of(i.Op).Format switch
    {
        Format.I or Format.Shift => i with { Rs2 = 0 },
        Format.S or Format.B => i with { Rd = 0 },
        Format.U or Format.J => i with { Rs1 = 0, Rs2 = 0 },
        Format.None => i with { Rd = 0, Rs1 = 0, Rs2 = 0 },
        _ => i,
    };

    private static string ToText(Instruction i)
    {
        IsaRow row = IsaTable.Of(i.Op);
        string operands = row.Format switch
        {
            Format.R => $"x{i.Rd}, x{i.Rs1}, x{i.Rs2}",
            Format.I when i.Op is Op.Jalr or (>= Op.Lb and <= Op.Lwu) => $"x{i.Rd}, {i.Imm}(x{i.Rs1})",
            Format.I or Format.Shift => $"x{i.Rd}, x{i.Rs1}, {i.Imm}",
            Format.S => $"x{i.Rs2}, {i.Imm}(x{i.Rs1})",
            Format.B => $"x{i.Rs1}, x{i.Rs2}, . + ({i.Imm})",
            Format.U => $"x{i.Rd}, {i.Imm >> 12 & 0xfffff}",
            Format.J => $"x{i.Rd}, . + ({i.Imm})",
            _ => "",
        };
        return $"{row.Name} {operands}";
    }
}
