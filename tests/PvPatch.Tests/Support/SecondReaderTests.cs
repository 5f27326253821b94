namespace PvPatch.Tests.Support;

/// <summary>The second encoder and the second reader do what the tests that lean on them believe.</summary>
public sealed class SecondReaderTests
{
    private const ulong Kernel = 0xffffffff81000000;

    [Fact]
    public void The_assembler_places_every_piece_at_its_own_address()
    {
        GnuAssembler.RequireTools();
        IReadOnlyList<byte[]> pieces = GnuAssembler.Assemble(
            64,
            [new(Kernel, "call 0xffffffff81000105"), new(Kernel + 0x100, "call 0xffffffff81000105"), new(Kernel, string.Empty),
                new(0x1000, ".rept 2; int3; .endr")]);
        Assert.Equal([0xe8, 0x00, 0x01, 0x00, 0x00], pieces[0]);
        Assert.Equal([0xe8, 0x00, 0x00, 0x00, 0x00], pieces[1]);
        Assert.Empty(pieces[2]);
        Assert.Equal([0xcc, 0xcc], pieces[3]);
    }

    [Fact]
    public void The_assembler_wraps_32_bit_addresses()
    {
        GnuAssembler.RequireTools();
        byte[] piece = GnuAssembler.Assemble(32, [new(0x10000, "jmp 0xfffff000")])[0];
        Assert.Equal([0xe9, 0xfb, 0xef, 0xfe, 0xff], piece);
    }

    [Fact]
    public void The_assembler_names_the_line_of_a_bad_piece()
    {
        GnuAssembler.RequireTools();
        var error = Assert.Throws<InvalidOperationException>(
            () => GnuAssembler.Assemble(64, [new(Kernel, "nop", "t.txt", 3), new(Kernel, "nop; flub %rax", "t.txt", 7)]));
        Assert.Contains("t.txt:7:", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Capstone_reads_kernel_addresses_in_both_modes()
    {
        byte[] code = [0xe8, 0xfb, 0x00, 0x00, 0x00, 0x66, 0x90];
        Assert.Equal(
            [(Kernel, 5, "call 0xffffffff81000100"), (Kernel + 5, 2, "nop")],
            CapstoneReader.Disassemble(code, Kernel, 64));

        byte[] identity = [0x48, 0x89, 0xf8];
        Assert.Equal([(0x1000UL, 3, "mov rax, rdi")], CapstoneReader.Disassemble(identity, 0x1000, 64));
        Assert.Equal([(0x1000UL, 1, "dec eax"), (0x1001UL, 2, "mov eax, edi")], CapstoneReader.Disassemble(identity, 0x1000, 32));
    }

    [Theory]
    [InlineData("90e80000")]
    [InlineData("900f")]
    [InlineData("06")]
    public void Bytes_that_are_no_whole_instruction_are_refused(string hex)
    {
        byte[] code = Convert.FromHexString(hex);
        Assert.ThrowsAny<Xunit.Sdk.XunitException>(() => CapstoneReader.AssertWholeInstructions(code, 0x1000, 64, "case"));
    }

    [Fact]
    public void Whole_instructions_pass() =>
        CapstoneReader.AssertWholeInstructions([0xfa, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00], Kernel, 64, "case");
}
