using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Elf;

public sealed class ElfImageTests
{
    private const ulong Text = 0xffffffff81000000;

    private static readonly byte[] s_code = [0xfb, 0xfa, 0x90, 0xc3];

    public static TheoryData<int, ulong> Kernels => new() { { 64, Text }, { 32, 0xc1000000 } };

    [Theory]
    [MemberData(nameof(Kernels))]
    public void The_header_and_sections_are_read(int bitness, ulong text)
    {
        TestElf builder = new TestElf(bitness) { Entry = 0x1000000 }
            .Code(".text", text, s_code)
            .NoBits(".bss", text + 0x1000, 0x200000)
            .Symbols();
        ElfImage image = ElfImage.Read(builder.Build());

        Assert.Equal(bitness, image.Bitness);
        Assert.Equal(bitness == 64 ? ElfMachine.X86X64 : ElfMachine.I386, image.Machine);
        Assert.Equal(ElfFileType.Executable, image.Type);
        Assert.Equal(0x1000000ul, image.Entry.Value);
        Assert.Equal(["", ".text", ".bss", ".symtab", ".strtab", ".shstrtab"], image.Sections.Select(s => s.Name));
        Assert.True(image.TryGetSection(".text", out ElfSection? section));
        Assert.Equal(1, section.Index);
        Assert.Equal(text, section.Address.Value);
        Assert.True(section.IsExecutable);
        Assert.Equal(s_code, image.GetBytes(section).ToArray());
        Assert.True(image.TryGetSection(".bss", out ElfSection? bss));
        Assert.Equal(0x200000ul, bss.Size);
        Assert.True(image.GetBytes(bss).IsEmpty);
        Assert.Empty(image.Warnings);
    }

    [Fact]
    public void Bytes_handed_out_are_those_of_the_file()
    {
        byte[] file = new TestElf().Code(".text", Text, s_code).Build();
        ElfImage image = ElfImage.Read(file);
        Assert.True(image.TryGetBytes(Text + 1, 1, out Memory<byte> bytes));
        Assert.True(image.TryGetFileOffset(Text + 1, 1, out long offset));
        bytes.Span[0] = 0xcc;
        Assert.Equal(0xcc, file[offset]);
    }

    [Theory]
    [MemberData(nameof(Kernels))]
    public void Addresses_are_looked_up_in_sections_then_in_segments(int bitness, ulong text)
    {
        // The second section starts 0x20 bytes on, so that both lie in one segment with a gap that has no section.
        byte[] file = new TestElf(bitness)
            .Code(".text", text, [.. s_code, .. new byte[12]])
            .Data(".rodata", text + 0x10, 1, 2, 3, 4, 5, 6, 7, 8)
            .Load(".text", ".rodata")
            .Build();
        ElfImage image = ElfImage.Read(file);
        long start = image.Sections[1].FileOffset;

        Assert.True(image.TryGetFileOffset(text + 2, 2, out long offset));
        Assert.Equal(start + 2, offset);
        Assert.True(image.TryGetFileOffset(text + 0x12, 6, out offset));
        Assert.Equal(image.Sections[2].FileOffset + 2, offset);
        Assert.True(image.TryGetFileOffset(text + 8, 12, out offset), "a range across two sections lies in the segment");
        Assert.Equal(start + 8, offset);
        Assert.False(image.TryGetFileOffset(text + 0x14, 5, out _));
        Assert.False(image.TryGetFileOffset(text - 1, 1, out _));
        Assert.False(image.TryGetFileOffset(text - 1, 2, out _));
        Assert.False(image.TryGetFileOffset(ulong.MaxValue, long.MaxValue, out _));
        Assert.True(image.TryGetSectionAt(text + 0x17, out ElfSection? section));
        Assert.Equal(".rodata", section.Name);
        Assert.False(image.TryGetSectionAt(text + 0x18, out _));
    }

    [Fact]
    public void What_follows_the_headers_content_is_left_out_of_its_end()
    {
        byte[] file = new TestElf().Code(".text", Text, s_code).Build();
        ElfImage image = ElfImage.Read((byte[])[.. file, .. new byte[1000]]);
        Assert.Equal(file.Length, image.EndOfFileContent);
        Assert.Equal(file.Length + 1000, image.File.Length);
    }

    [Fact]
    public void A_file_without_section_headers_is_read_by_its_segments_with_a_warning()
    {
        byte[] file = new TestElf().Code(".text", Text, s_code).Load(".text", ".text").Build()
            .With64(40, 0).With16(60, 0).With16(62, 0);
        ElfImage image = ElfImage.Read(file);

        Assert.Empty(image.Sections);
        Assert.Equal(KernelDiagnosticCodes.ElfNoSectionHeaders, Assert.Single(image.Warnings).Code);
        Assert.True(image.TryGetBytes(Text, 4, out Memory<byte> bytes));
        Assert.Equal(s_code, bytes.ToArray());
        Assert.False(image.TryGetSection(".altinstructions", out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.ElfNoSectionHeaders, error.Code);
        Assert.Contains(".altinstructions", error.Expected, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_section_is_told_apart_from_missing_headers()
    {
        ElfImage image = ElfImage.Read(new TestElf().Code(".text", Text, s_code).Build());
        Assert.False(image.TryGetSection(".BTF", out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.ElfSectionMissing, error.Code);
    }

    [Fact]
    public void Extended_numbering_takes_count_and_names_from_section_0()
    {
        TestElf builder = new TestElf().Code(".text", Text, s_code);
        byte[] file = builder.Build();
        int first = builder.SectionTableOffset;
        file = file.With16(60, 0).With16(62, 0xffff).With64(first + 32, 3).With32(first + 40, 2);
        ElfImage image = ElfImage.Read(file);
        Assert.Equal(["", ".text", ".shstrtab"], image.Sections.Select(s => s.Name));
    }

    [Fact]
    public void A_relocatable_file_is_read_but_has_no_addresses()
    {
        byte[] file = new TestElf(64, ElfFileType.Relocatable).Code(".text", 0, s_code).Code(".init.text", 0, s_code).Build();
        ElfImage image = ElfImage.Read(file);
        Assert.Equal(ElfFileType.Relocatable, image.Type);
        Assert.False(image.TryGetFileOffset(0, 1, out _));
        Assert.Equal(s_code, image.GetBytes(image.Sections[2]).ToArray());
    }

    [Fact]
    public void A_section_of_another_image_is_refused()
    {
        byte[] file = new TestElf().Code(".text", Text, s_code).Build();
        ElfImage image = ElfImage.Read(file);
        Assert.Throws<ArgumentException>(() => image.GetBytes(ElfImage.Read(file).Sections[1]));
    }

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Symbols_are_read_with_name_value_size_type_and_section(int bitness)
    {
        byte[] file = new TestElf(bitness)
            .Code(".text", 0xc1000000, s_code)
            .Symbols(("", 0, 0, ElfSymbolType.Section, 1), ("undefined", 0, 0, ElfSymbolType.None, 0),
                ("pv_ops", 0xc1000002, 2, ElfSymbolType.Data, 1), ("absolute", 7, 0, ElfSymbolType.None, 0xfff1))
            .Build();
        Assert.True(ElfImage.Read(file).TryReadSymbols(out ElfSymbolTable? symbols, out _));

        Assert.Equal(5, symbols.Count);
        Assert.Equal("pv_ops", symbols.GetName(3));
        Assert.True(symbols.TryFind("pv_ops", out ElfSymbol symbol));
        Assert.Equal(0xc1000002ul, symbol.Value.Value);
        Assert.Equal(2ul, symbol.Size);
        Assert.Equal(ElfSymbolType.Data, symbol.Type);
        Assert.Equal(1, symbol.SectionIndex);
        Assert.Equal(-1, symbols[4].SectionIndex);
        Assert.False(symbols.TryFind("undefined", out _), "an undefined symbol has no value");
        Assert.False(symbols.TryFind("pv_op", out _));
    }

    [Fact]
    public void A_stripped_file_says_that_it_has_no_symbols()
    {
        ElfImage image = ElfImage.Read(new TestElf().Code(".text", Text, s_code).Build());
        Assert.False(image.TryReadSymbols(out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.ElfNoSymbols, error.Code);
        Assert.Contains("System.map", error.Help, StringComparison.Ordinal);
    }
}
