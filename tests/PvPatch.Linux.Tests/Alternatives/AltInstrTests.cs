using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Alternatives;

public sealed class AltInstrTests
{
    private const ulong Text64 = 0xffffffff81000000;
    private const ulong Text32 = 0xc1000000;

    // Two original sequences and their replacements; each format's records follow. The assembler does the address arithmetic.
    private const string Code = """
        .section .text,"ax",@progbits
        .skip 0x100, 0x90
        one: .skip 6, 0x90
        .skip 10, 0xcc
        two: .skip 5, 0x90
        .section .altinstr_replacement,"ax",@progbits
        rone: cli
        rtwo: .byte 0x0f, 0x22, 0xdf
        .section .altinstructions,"a",@progbits

        """;

    public static TheoryData<string, int, string> Formats => new()
    {
        { "absolute, 32-bit", 32, ".balign 4\n.long one, rone\n.byte 0x10, 6, 1\n.balign 4\n.long two, rtwo\n.byte 0x6b, 5, 3" },
        { "absolute, 64-bit", 64, ".balign 8\n.quad one, rone\n.byte 0x10, 6, 1\n.balign 8\n.quad two, rtwo\n.byte 0x6b, 5, 3" },
        { "absolute, 32-bit, 16-bit feature", 32,
            ".balign 4\n.long one, rone\n.word 0x110\n.byte 6, 1\n.balign 4\n.long two, rtwo\n.word 0x6b\n.byte 5, 3" },
        { "absolute, 64-bit, 16-bit feature", 64,
            ".balign 8\n.quad one, rone\n.word 0x110\n.byte 6, 1\n.balign 8\n.quad two, rtwo\n.word 0x6b\n.byte 5, 3" },
        { "relative", 64, ".long one - ., rone - .\n.word 0x8110\n.byte 6, 1\n.long two - ., rtwo - .\n.word 0x6b\n.byte 5, 3" },
        { "relative", 32, ".long one - ., rone - .\n.word 0x8110\n.byte 6, 1\n.long two - ., rtwo - .\n.word 0x6b\n.byte 5, 3" },
        { "relative, padding length", 64,
            ".long one - ., rone - .\n.word 0x110\n.byte 6, 1, 0\n.long two - ., rtwo - .\n.word 0x6b\n.byte 5, 3, 2" },
        { "relative, flags", 64, ".long one - ., rone - .\n.long 0x10110\n.byte 6, 1\n.long two - ., rtwo - .\n.long 0x2006b\n.byte 5, 3" },
        { "relative, flags", 32, ".long one - ., rone - .\n.long 0x10110\n.byte 6, 1\n.long two - ., rtwo - .\n.long 0x2006b\n.byte 5, 3" },
    };

    [Theory]
    [MemberData(nameof(Formats))]
    public void Every_format_is_recognised_and_read(string name, int bitness, string records)
    {
        ulong text = bitness == 64 ? Text64 : Text32;
        ElfImage image = ElfImage.Read(Tools.AssembleAndLink(
            Code + records + "\n", bitness, (".text", text), (".altinstructions", text + 0x200000),
            (".altinstr_replacement", text + 0x210000)));

        Assert.True(AltInstrTable.TryRead(image, out AltInstrTable? table, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(name, table.Format.Name);
        Assert.Equal(2, table.Count);
        Assert.Equal((text + 0x100, text + 0x210000, 6, 1), Shape(table[0]));
        Assert.Equal((text + 0x110, text + 0x210001, 5, 3), Shape(table[1]));
        bool oneByte = name is "absolute, 32-bit" or "absolute, 64-bit";
        Assert.Equal(oneByte ? 0x10 : 0x110, table[0].Feature);
        Assert.Equal(0x6b, table[1].Feature);
        Assert.Equal(
            records.Contains("0x8110", StringComparison.Ordinal) || records.Contains("0x10110", StringComparison.Ordinal), table[0].IsNot);
        Assert.Equal(records.Contains("0x2006b", StringComparison.Ordinal), table[1].IsDirectCall);
        Assert.Equal(records.Contains("5, 3, 2", StringComparison.Ordinal) ? 2 : 0, table[1].PaddingLength);
        Assert.False(table[1].IsNot);
        Assert.False(table[0].IsDirectCall);
    }

    [Fact]
    public void A_record_of_a_real_6_1_kernel_is_read()
    {
        // The cli of Debian's 6.1 in .altinstructions at 0xffffffff832f35d0, taken from the image.
        byte[] record = Bytes.FromHex("a8 68 d8 ff a0 da 00 00 10 81 06 01");
        Assert.True(AltInstrTable.TryRead(record, 0xffffffff832f35d0, AltInstrFormat.Relative, 64, 0, out AltInstrTable? table, out _));
        Assert.Equal((0xffffffff83079e78, 0xffffffff83301074, 6, 1), Shape(table[0]));
        Assert.Equal((8 * 32) + 16, table[0].Feature);
        Assert.True(table[0].IsNot);
    }

    [Fact]
    public void Sizes_of_real_tables_do_not_settle_the_format()
    {
        // 6.1: 4667 records of 12 bytes, but 4308 of 13 would fit too. 6.12: 9462 of 14, but 11039 of 12 would fit too.
        Assert.Equal([AltInstrFormat.RelativePadded, AltInstrFormat.Relative], AltInstrFormat.Candidates(56004, 64));
        Assert.Equal([AltInstrFormat.Relative, AltInstrFormat.RelativeFlags], AltInstrFormat.Candidates(132468, 64));
        Assert.Empty(AltInstrFormat.Candidates(2, 64));
    }

    [Fact]
    public void Formats_of_the_other_bitness_are_no_candidates()
    {
        Assert.DoesNotContain(AltInstrFormat.Absolute64, AltInstrFormat.Candidates(24, 32));
        Assert.DoesNotContain(AltInstrFormat.Absolute32, AltInstrFormat.Candidates(24, 64));
    }

    [Fact]
    public void A_size_that_is_no_multiple_is_refused()
    {
        Assert.False(AltInstrTable.TryRead(new byte[25], Text64, AltInstrFormat.Relative, 64, 0x1234, out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.AltSizeNotMultiple, error.Code);
        Assert.Equal(0x1234, error.FileOffset);
    }

    [Theory]
    [InlineData(64, 0x1000, "00 f0 ff 7f 00 00 00 80 00 00 01 01", true)]
    [InlineData(64, 0xfffffffffffff000, "00 10 00 00 00 00 00 00 00 00 01 01", true)]
    [InlineData(64, 0xfffffffffffff000, "ff 0f 00 00 00 00 00 00 00 00 02 01", true)]
    [InlineData(32, 0xfffff000, "00 10 00 00 00 00 00 00 00 00 01 01", true)]
    [InlineData(32, 0xfffff000, "ff 0f 00 00 00 00 00 00 00 00 01 01", false)]
    public void Records_that_leave_the_address_space_are_refused(int bitness, ulong address, string hex, bool refused)
    {
        bool read = AltInstrTable.TryRead(
            Bytes.FromHex(hex), address, AltInstrFormat.Relative, bitness, 0x40, out _, out PatchDiagnostic? error);
        Assert.Equal(refused, !read);
        Assert.Equal(refused ? KernelDiagnosticCodes.AltAddressOverflow : null, error?.Code);
    }

    [Fact]
    public void A_table_that_fits_no_format_says_why_for_each()
    {
        byte[] records = new byte[24];
        Assert.False(Detect(records, (_, _) => false, (_, _) => true, out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.AltFormatUnknown, error.Code);
        Assert.Contains("relative (12 bytes): record 0 makes no sense", error.Found, StringComparison.Ordinal);
        Assert.False(Detect(new byte[5], (_, _) => true, (_, _) => true, out _, out error));
        Assert.Equal(KernelDiagnosticCodes.AltFormatUnknown, error.Code);
    }

    [Fact]
    public void Formats_that_disagree_are_refused()
    {
        // 84 bytes of zeros are seven records of 12 or six of 14, and nothing tells which.
        Assert.False(Detect(new byte[84], (_, _) => true, (_, _) => true, out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.AltFormatAmbiguous, error.Code);
        Assert.Contains("relative", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void An_empty_table_is_read_as_empty()
    {
        Assert.True(Detect([], (_, _) => false, (_, _) => false, out AltInstrTable? table, out _));
        Assert.Equal(0, table!.Count);
    }

    [Fact]
    public void A_kernel_without_the_section_says_so()
    {
        ElfImage image = ElfImage.Read(new TestElf().Code(".text", Text64, 0x90).Build());
        Assert.False(AltInstrTable.TryRead(image, out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.ElfSectionMissing, error.Code);
    }

    private static bool Detect(byte[] records, AltAddressPredicate isCode, AltAddressPredicate isReplacement, out AltInstrTable? table,
        [System.Diagnostics.CodeAnalysis.NotNullWhen(false)] out PatchDiagnostic? error) =>
        AltInstrDetector.TryDetect(records, Text64, 64, 0, isCode, isReplacement, out table, out error);

    private static (ulong Address, ulong Replacement, int Length, int ReplacementLength) Shape(AltInstr record) =>
        (record.Address.Value, record.ReplacementAddress.Value, record.Length, record.ReplacementLength);
}
