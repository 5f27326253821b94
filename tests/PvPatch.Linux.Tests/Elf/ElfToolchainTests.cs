using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Elf;

/// <summary>Files written by GNU as and ld: a second opinion on the format beside the test builder's.</summary>
public sealed class ElfToolchainTests
{
    private const string Source = """
        .section .text,"ax",@progbits
        .globl start
        .type start,@function
        start: cli
               sti
               ret
        .size start, . - start
        .section .altinstructions,"a",@progbits
        .byte 1,2,3,4
        .section .bss,"aw",@nobits
        .skip 4096
        .globl buffer
        .set buffer, 0x12345678

        """;

    [Theory]
    [InlineData(64, 0xffffffff81000000)]
    [InlineData(32, 0xc1000000)]
    public void A_linked_file_is_read(int bitness, ulong text)
    {
        byte[] file = Tools.AssembleAndLink(
            Source, bitness, (".text", text), (".altinstructions", text + 0x200000), (".bss", text + 0x300000));
        ElfImage image = ElfImage.Read(file);

        Assert.Equal(ElfFileType.Executable, image.Type);
        Assert.Equal(bitness, image.Bitness);
        Assert.Equal(file.Length, image.EndOfFileContent);
        Assert.True(image.TryGetBytes(text, 3, out Memory<byte> code));
        Assert.Equal([0xfa, 0xfb, 0xc3], code.ToArray());
        Assert.True(image.TryGetBytes(text + 0x200000, 4, out Memory<byte> table));
        Assert.Equal([1, 2, 3, 4], table.ToArray());
        Assert.True(image.TryGetSection(".bss", out ElfSection? bss));
        Assert.Equal(4096ul, bss.Size);
        Assert.True(image.TryReadSymbols(out ElfSymbolTable? symbols, out _));
        Assert.True(symbols.TryFind("start", out ElfSymbol start));
        Assert.Equal((text, 3ul, ElfSymbolType.Function), (start.Value.Value, start.Size, start.Type));
        Assert.True(symbols.TryFind("buffer", out ElfSymbol buffer));
        Assert.Equal(-1, buffer.SectionIndex);
        Assert.Contains(
            image.Segments, s => s.Type == ElfSegmentType.Load && s.Address.Value <= text && (s.Flags & ElfSegmentAccess.Execute) != 0);
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void An_object_file_is_read(int bitness)
    {
        ElfImage image = ElfImage.Read(Tools.Assemble(Source, bitness));
        Assert.Equal(ElfFileType.Relocatable, image.Type);
        Assert.True(image.TryGetSection(".text", out ElfSection? text));
        Assert.Equal([0xfa, 0xfb, 0xc3], image.GetBytes(text).ToArray());
    }

    [Fact]
    public void An_object_file_with_more_than_65280_sections_is_read()
    {
        const int Count = 66_000;
        var source = new System.Text.StringBuilder();
        for (int i = 0; i < Count; i++)
        {
            source.Append(System.Globalization.CultureInfo.InvariantCulture, $".section .s{i},\"ax\",@progbits\nf{i}: .byte {i & 0xff}\n");
        }

        ElfImage image = ElfImage.Read(Tools.Assemble(source.ToString(), 64));
        Assert.True(image.Sections.Count > Count);
        Assert.True(image.TryGetSection(".s65999", out ElfSection? section));
        Assert.Equal([65999 & 0xff], image.GetBytes(section).ToArray());
        Assert.True(image.TryReadSymbols(out ElfSymbolTable? symbols, out _));
        Assert.True(symbols.TryFind("f65999", out ElfSymbol symbol));
        Assert.Equal(section.Index, symbol.SectionIndex);
    }
}
