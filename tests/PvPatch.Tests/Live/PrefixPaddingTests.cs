using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Live;

public sealed class PrefixPaddingTests
{
    [Fact]
    public void A_nop_of_every_length_is_one_instruction_to_two_readers()
    {
        for (int length = 1; length <= 15; length++)
        {
            byte[] nop = new byte[length];
            PrefixPadding.WriteNop(nop);
            (ulong _, int read, string text) = Assert.Single(CapstoneReader.Disassemble(nop, 0, 64));
            Assert.Equal(length, read);
            Assert.Contains(text.Split(' ')[0], (string[])["nop", "xchg"]);
            var decoder = Decoder.Create(64, nop);
            Instruction instruction = decoder.Decode();
            Assert.Equal(Mnemonic.Nop, instruction.Mnemonic);
            Assert.Equal(length, instruction.Length);
        }
    }

    [Theory]
    [InlineData("89 f8", "mov eax, edi")]
    [InlineData("48 89 f8", "mov rax, rdi")] // prefixes go before REX
    [InlineData("b8 01 00 00 00", "mov eax, 1")]
    [InlineData("8b 04 3b", "mov eax, dword ptr [rbx + rdi]")]
    [InlineData("c5 f8 28 c1", "vmovaps xmm0, xmm1")]
    [InlineData("f3 0f b8 c7", "popcnt eax, edi")]
    [InlineData("f0 48 0f c1 07", "lock xadd qword ptr [rdi], rax")]
    [InlineData("50", "push rax")]
    public void An_instruction_stays_the_same_at_every_length(string bytes, string text)
    {
        Assert.True(HexBytes.TryParse(bytes, out byte[]? instruction));
        for (int length = instruction!.Length; length <= 15; length++)
        {
            byte[] padded = new byte[length];
            Assert.True(PrefixPadding.TryPad(instruction, padded), $"{text} {length}");
            (ulong _, int read, string what) = Assert.Single(CapstoneReader.Disassemble(padded, 0, 64));
            Assert.Equal(length, read);
            Assert.Equal(text, what.Replace("cs:", "", StringComparison.Ordinal));
        }
    }

    [Fact]
    public void A_segment_that_counts_is_repeated_and_not_mixed_with_another()
    {
        byte[] padded = new byte[12];
        Assert.True(PrefixPadding.TryPad([0x64, 0x8b, 0x07], padded)); // mov eax,fs:[rdi]
        Assert.Equal("64 64 64 64 64 64 64 64 64 64 8b 07", HexBytes.Format(padded));
        Assert.Equal("mov eax, dword ptr fs:[rdi]", Assert.Single(CapstoneReader.Disassemble(padded, 0, 64)).Text);
    }

    [Theory]
    [InlineData("f3 a4")] // rep movsb: can be interrupted half done
    [InlineData("c4 e2 75 90 04 07")] // vpgatherdd ymm0,[rdi+ymm0],ymm1: the same
    [InlineData("0f 05")] // syscall: restarted at its unpadded start
    [InlineData("cd 80")] // int 0x80
    [InlineData("cc")] // int3
    [InlineData("74 00")] // je: cs is a hint
    [InlineData("90 90")] // two
    [InlineData("48")] // none
    public void What_may_not_stand_alone_is_refused(string bytes)
    {
        Assert.True(HexBytes.TryParse(bytes, out byte[]? instruction));
        Assert.False(PrefixPadding.TryPad(instruction, new byte[8]));
    }

    [Fact]
    public void Nothing_is_cut_and_nothing_exceeds_fifteen_bytes()
    {
        Assert.False(PrefixPadding.TryPad([0xb8, 1, 0, 0, 0], new byte[4]));
        Assert.False(PrefixPadding.TryPad([0x89, 0xf8], new byte[16]));
    }
}
