using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Elf;

public sealed class ElfBadInputTests
{
    private const ulong Text = 0xffffffff81000000;

    // Fields of the 64-bit file header and section header, by the System V ABI.
    private const int Shoff = 40;
    private const int Phoff = 32;
    private const int Shnum = 60;
    private const int Shstrndx = 62;
    private const int ShAddress = 16;
    private const int ShOffset = 24;
    private const int ShSize = 32;

    private readonly TestElf _builder = new TestElf()
        .Code(".text", Text, new byte[64])
        .Data(".rodata", Text + 0x1000, new byte[64])
        .Load(".text", ".rodata")
        .Symbols(("a", Text, 1, ElfSymbolType.Function, 1));

    private readonly byte[] _file;

    public ElfBadInputTests()
    {
        _file = _builder.Build();
        Assert.True(ElfImage.TryRead(_file, out _, out _), "the file is sound before it is damaged");
    }

    [Fact]
    public void Every_truncation_is_refused()
    {
        for (int length = 0; length < _file.Length; length++)
        {
            PatchDiagnostic error = Refuse(_file[..length]);
            Assert.InRange(error.FileOffset!.Value, 0, _file.Length);
        }
    }

    [Theory]
    [InlineData(4, 3, "class")]
    [InlineData(5, 2, "little-endian")]
    [InlineData(16, 4, "type")]
    [InlineData(18, 183, "machine")]
    [InlineData(20, 2, "version")]
    public void Files_of_other_kinds_are_named(int offset, byte value, string word)
    {
        byte[] file = [.. _file];
        file[offset] = value;
        PatchDiagnostic error = Refuse(file);
        Assert.Equal(KernelDiagnosticCodes.ElfNotSupported, error.Code);
        Assert.Equal(offset, error.FileOffset);
        Assert.Contains(word, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ulong.MaxValue)]
    [InlineData(0xffffffffffffffc0)]
    [InlineData(0x7fffffffffffffff)]
    [InlineData(0x80000000)]
    public void Tables_outside_the_file_are_refused(ulong offset)
    {
        Assert.Equal(KernelDiagnosticCodes.ElfTableOutsideFile, Refuse(_file.With64(Shoff, offset)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfTableOutsideFile, Refuse(_file.With64(Phoff, offset)).Code);
    }

    [Fact]
    public void A_table_that_reaches_one_header_too_far_is_refused()
    {
        ushort count = (ushort)(_file[Shnum] + 1);
        PatchDiagnostic error = Refuse(_file.With16(Shnum, count));
        Assert.Equal(KernelDiagnosticCodes.ElfTableOutsideFile, error.Code);
        Assert.Contains($"{count} headers", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_extended_count_that_overflows_is_refused()
    {
        byte[] file = _file.With16(Shnum, 0).With64(_builder.SectionTableOffset + ShSize, 0x0400000000000001);
        Assert.Equal(KernelDiagnosticCodes.ElfTableOutsideFile, Refuse(file).Code);
    }

    [Theory]
    [InlineData(58)]
    [InlineData(54)]
    public void Other_entry_sizes_are_refused(int offset)
    {
        Assert.Equal(KernelDiagnosticCodes.ElfBadHeaderField, Refuse(_file.With16(offset, 0)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadHeaderField, Refuse(_file.With16(offset, 0x100)).Code);
    }

    [Theory]
    [InlineData(ShOffset, 0xffffffffffffffff)]
    [InlineData(ShOffset, 0xfffffffffffffff0)]
    [InlineData(ShSize, 0xffffffffffffffff)]
    [InlineData(ShSize, 0x7fffffff)]
    public void A_section_outside_the_file_is_refused_by_name(int field, ulong value)
    {
        PatchDiagnostic error = Refuse(_file.With64(Header(1) + field, value));
        Assert.Equal(KernelDiagnosticCodes.ElfSectionOutsideFile, error.Code);
        Assert.Contains(".text", error.Message, StringComparison.Ordinal);
        Assert.Equal(Header(1), error.FileOffset);
    }

    [Fact]
    public void A_section_that_wraps_the_address_space_is_refused()
    {
        Assert.Equal(KernelDiagnosticCodes.ElfAddressOverflow, Refuse(_file.With64(Header(2) + ShAddress, ulong.MaxValue - 62)).Code);
        ElfImage image = ElfImage.Read(_file.With64(Header(2) + ShAddress, ulong.MaxValue - 63));
        Assert.True(image.TryGetFileOffset(ulong.MaxValue, 1, out _), "a section may end exactly at the end");
    }

    [Fact]
    public void A_segment_outside_the_file_or_larger_than_its_memory_is_refused()
    {
        int segment = _builder.SegmentTableOffset;
        Assert.Equal(KernelDiagnosticCodes.ElfSegmentOutsideFile, Refuse(_file.With64(segment + 8, ulong.MaxValue)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfSegmentOutsideFile, Refuse(_file.With64(segment + 32, ulong.MaxValue)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadHeaderField, Refuse(_file.With64(segment + 40, 1)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfAddressOverflow, Refuse(_file.With64(segment + 40, ulong.MaxValue)).Code);
    }

    [Fact]
    public void Sections_that_share_bytes_or_addresses_are_refused()
    {
        ulong text = BitConverter.ToUInt64(_file, Header(1) + ShOffset);
        PatchDiagnostic bytes = Refuse(_file.With64(Header(2) + ShOffset, text + 63));
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, bytes.Code);
        Assert.Contains(".text and .rodata", bytes.Message, StringComparison.Ordinal);
        PatchDiagnostic addresses = Refuse(_file.With64(Header(2) + ShAddress, Text + 63));
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, addresses.Code);
        Assert.Equal(Text + 63, addresses.Address!.Value.Value);
    }

    [Fact]
    public void A_section_over_the_headers_is_refused()
    {
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, Refuse(_file.With64(Header(1) + ShOffset, 0)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, Refuse(_file.With64(Header(1) + ShOffset, (ulong)_builder.SectionTableOffset)).Code);
    }

    [Theory]
    [InlineData(3, ".symtab")]
    [InlineData(4, ".strtab")]
    [InlineData(5, ".shstrtab")]
    public void A_section_that_is_not_loaded_over_one_that_is_is_refused(int index, string name)
    {
        // A patched .text would change the symbols with it.
        ulong text = BitConverter.ToUInt64(_file, Header(1) + ShOffset);
        byte[] file = _file.With64(Header(index) + ShOffset, text + 40);
        if (name == ".shstrtab")
        {
            // The names must be readable for the overlap to be the finding: they are moved into the code with all they are.
            int from = (int)BitConverter.ToUInt64(_file, Header(index) + ShOffset);
            int size = (int)BitConverter.ToUInt64(_file, Header(index) + ShSize);
            file = _file.With64(Header(index) + ShOffset, text + 8);
            _file.AsSpan(from, size).CopyTo(file.AsSpan((int)text + 8));
        }

        PatchDiagnostic error = Refuse(file);
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, error.Code);
        Assert.Contains($".text and {name} share bytes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Sections_that_are_not_loaded_may_share_bytes()
    {
        ulong symbols = BitConverter.ToUInt64(_file, Header(3) + ShOffset);
        Assert.True(ElfImage.TryRead(_file.With64(Header(4) + ShOffset, symbols), out _, out _));
    }

    [Fact]
    public void A_loaded_section_within_a_longer_one_further_down_is_found()
    {
        // .rodata covers .text from before; between them by offset stands nothing.
        ulong text = BitConverter.ToUInt64(_file, Header(1) + ShOffset);
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, Refuse(_file.With64(Header(2) + ShOffset, text)).Code);
    }

    [Fact]
    public void Memory_that_is_cleared_over_code_is_refused()
    {
        byte[] Build(ulong address) => new TestElf().Code(".text", Text, new byte[64]).NoBits(".bss", address, 0x1000).Build();
        Assert.True(ElfImage.TryRead(Build(Text + 64), out _, out _));
        foreach (ulong address in (ulong[])[Text, Text + 63, Text - 0xfff])
        {
            PatchDiagnostic error = Refuse(Build(address));
            Assert.Equal(KernelDiagnosticCodes.ElfOverlap, error.Code);
            Assert.Contains(".text and .bss share addresses", error.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(8, 16)] // p_offset: the loader takes other bytes of the file
    [InlineData(16, 16)] // p_vaddr: it puts them 16 bytes further up
    [InlineData(32, -80)] // p_filesz: it cuts .rodata short
    public void A_segment_that_puts_other_bytes_at_a_section_is_refused(int field, int change)
    {
        int at = _builder.SegmentTableOffset + field;
        byte[] file = _file.With64(at, BitConverter.ToUInt64(_file, at) + (ulong)change);
        PatchDiagnostic error = Refuse(file);
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, error.Code);
        Assert.Contains("A loader would put other bytes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Segments_over_the_same_addresses_are_refused()
    {
        var builder = new TestElf().Code(".text", Text, new byte[64]).Data(".rodata", Text + 64, new byte[64]).Load(".text", ".text")
            .Load(".rodata", ".rodata");
        byte[] file = builder.Build();
        Assert.True(ElfImage.TryRead(file, out _, out _));
        PatchDiagnostic error = Refuse(file.With64(builder.SegmentTableOffset + 56 + 16, Text + 63));
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, error.Code);
        Assert.Contains("segments share addresses", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(".parainstructions")]
    [InlineData(".altinstructions")]
    [InlineData(".retpoline_sites")]
    public void A_table_that_is_code_is_refused(string name)
    {
        PatchDiagnostic error = Refuse(new TestElf().Code(".text", Text, new byte[64]).Code(name, Text + 0x1000, new byte[64]).Build());
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, error.Code);
        Assert.Contains(name, error.Message, StringComparison.Ordinal);
        Assert.True(ElfImage.TryRead(
            new TestElf().Code(".text", Text, new byte[64]).Data(name, Text + 0x1000, new byte[64]).Build(), out _, out _));
    }

    [Fact]
    public void Bad_section_names_are_refused()
    {
        int names = _file[Shnum] - 1;
        int last = (int)BitConverter.ToUInt64(_file, Header(names) + ShOffset)
            + (int)BitConverter.ToUInt64(_file, Header(names) + ShSize) - 1;
        byte[] open = [.. _file];
        open[last] = (byte)'x';
        Assert.Equal(KernelDiagnosticCodes.ElfBadStringTable, Refuse(open).Code);
        Assert.Equal(last, Refuse(open).FileOffset);
        Assert.Equal(KernelDiagnosticCodes.ElfBadStringTable, Refuse(_file.With32(Header(1), 0x7fffffff)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadStringTable, Refuse(_file.With16(Shstrndx, (ushort)(names + 1))).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadStringTable, Refuse(_file.With16(Shstrndx, 1)).Code);
    }

    [Fact]
    public void Many_sections_that_share_one_long_name_do_not_take_memory_for_each()
    {
        var builder = new TestElf();
        builder.Add(new string('n', 4000), ElfSectionType.Note, ElfSectionAttributes.None, 0, []);
        for (int i = 0; i < 1000; i++)
        {
            builder.Add("", ElfSectionType.Note, ElfSectionAttributes.None, 0, []);
        }

        byte[] file = builder.Build();
        for (int i = 2; i < 1002; i++)
        {
            BitConverter.TryWriteBytes(file.AsSpan(builder.SectionTableOffset + (i * 64)), 1);
        }

        PatchDiagnostic error = Refuse(file);
        Assert.Equal(KernelDiagnosticCodes.ElfBadStringTable, error.Code);
        Assert.Contains("too long", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_symbol_table_that_lies_is_refused()
    {
        const int Link = 40;
        const int EntrySize = 56;
        Assert.Equal(KernelDiagnosticCodes.ElfBadSymbolTable, RefuseSymbols(_file.With64(Header(3) + EntrySize, 16)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadSymbolTable, RefuseSymbols(_file.With64(Header(3) + EntrySize, 0)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadSymbolTable, RefuseSymbols(_file.With64(Header(3) + ShSize, 47)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadSymbolTable, RefuseSymbols(_file.With32(Header(3) + Link, 99)).Code);
        Assert.Equal(KernelDiagnosticCodes.ElfBadSymbolTable, RefuseSymbols(_file.With32(Header(3) + Link, 1)).Code);
        int symbol = (int)BitConverter.ToUInt64(_file, Header(3) + ShOffset) + 24;
        Assert.Equal(KernelDiagnosticCodes.ElfBadSymbolTable, RefuseSymbols(_file.With32(symbol, 3)).Code);
    }

    [Fact]
    public void The_throwing_form_carries_the_diagnostic()
    {
        PatchException exception = Assert.Throws<PatchException>(() => ElfImage.Read(new byte[3]));
        Assert.Equal(KernelDiagnosticCodes.ElfNotSupported, exception.Diagnostic.Code);
    }

    private int Header(int section) => _builder.SectionTableOffset + (section * _builder.SectionEntrySize);

    private static PatchDiagnostic Refuse(byte[] file)
    {
        Assert.False(ElfImage.TryRead(file, out ElfImage? image, out PatchDiagnostic? error));
        Assert.Null(image);
        Assert.Equal(DiagnosticSeverity.Error, error.Severity);
        Assert.NotNull(error.Help);
        return error;
    }

    private static PatchDiagnostic RefuseSymbols(byte[] file)
    {
        Assert.False(ElfImage.Read(file).TryReadSymbols(out _, out PatchDiagnostic? error));
        return error;
    }
}
