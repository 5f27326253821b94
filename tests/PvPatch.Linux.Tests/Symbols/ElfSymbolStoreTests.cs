using System.Globalization;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Symbols;

/// <summary>The symbol table of a linked file, as nm lists it.</summary>
public sealed class ElfSymbolStoreTests
{
    private const string Source = """
        .section .text,"ax",@progbits
        .globl _text
        _text:
        .globl start
        .type start,@function
        start: nop
        .type helper,@function
        helper: nop
        .weak maybe
        .type maybe,@function
        maybe: ret
        .section .rodata,"a",@progbits
        .globl banner
        .type banner,@object
        banner: .byte 1,2,3,4
        .weak choice
        .type choice,@object
        choice: .byte 5
        .section .data,"aw",@progbits
        counter: .long 7
        .section .bss,"aw",@nobits
        .globl buffer
        buffer: .skip 64
        .set fixed, 0x12345678

        """;

    [Theory]
    [InlineData(64, 0xffffffff81000000)]
    [InlineData(32, 0xc1000000)]
    public void Addresses_letters_and_names_are_those_of_nm(int bitness, ulong text)
    {
        byte[] file = Tools.AssembleAndLink(
            Source, bitness, (".text", text), (".rodata", text + 0x100000), (".data", text + 0x200000), (".bss", text + 0x300000));
        using var folder = new TestFolder();
        string path = folder.File("linked");
        File.WriteAllBytes(path, file);
        string[] listed = System.Text.Encoding.ASCII.GetString(Tools.Pipe([], "nm", path))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries);

        KernelSymbols symbols = SymbolSamples.Read(file);
        Assert.Equal(KernelSymbolSource.SymbolTable, symbols.Source);
        string digits = bitness == 64 ? "x16" : "x8";
        Assert.Equal(
            listed.Order(StringComparer.Ordinal),
            symbols.All.Select(s => $"{s.Address.Value.ToString(digits, CultureInfo.InvariantCulture)} {s.Type} {s.Name}")
                .Order(StringComparer.Ordinal));
        Assert.Equal(symbols.All.OrderBy(static s => s.Address.Value).Select(static s => s.Name), symbols.All.Select(static s => s.Name));
        Assert.True(symbols.TryGetName(text, out string? name, out _));
        Assert.Equal("start", name);
    }

    [Fact]
    public void Symbols_without_a_printable_name_are_left_out()
    {
        ulong text = SymbolSamples.Text(64);
        byte[] file = new TestElf()
            .Code(".text", text, new byte[16])
            .Symbols(("", text, 0, ElfSymbolType.None, 1), ("two words", text, 0, ElfSymbolType.None, 1),
                ("\u00e9", text, 0, ElfSymbolType.None, 1), ("name", text, 0, ElfSymbolType.None, 1),
                ("absent", 0, 0, ElfSymbolType.None, 0), (".Llabel", text, 0, ElfSymbolType.None, 1))
            .Build();
        Assert.Equal([new KernelSymbol(text, 'T', "name")], SymbolSamples.Read(file).All);
    }

    [Fact]
    public void The_table_is_preferred_and_kallsyms_can_be_asked_for()
    {
        List<(ulong Address, char Type, string Name)> made = SymbolSamples.Make(64);
        byte[] tables = new TestKallsyms(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, SymbolSamples.Place(64)).Build(made);
        byte[] file = SymbolSamples.Image(64, tables).Symbols(("only_here", SymbolSamples.Text(64) + 4, 4, ElfSymbolType.Function, 1))
            .Build();

        KernelSymbols table = SymbolSamples.Read(file);
        Assert.Equal((KernelSymbolSource.SymbolTable, 1), (table.Source, table.Count));
        Assert.True(KernelSymbols.TryFromKallsyms(ElfImage.Read(file), out KernelSymbols? kallsyms, out _));
        Assert.Equal((KernelSymbolSource.Kallsyms, made.Count), (kallsyms.Source, kallsyms.Count));
    }

    [Fact]
    public void A_damaged_table_is_reported_only_where_there_is_no_kallsyms()
    {
        TestElf Image(byte[] content) =>
            SymbolSamples.Image(64, content).Add(".symtab", ElfSectionType.SymbolTable, ElfSectionAttributes.None, 0, new byte[23], 0, 24);
        byte[] tables = new TestKallsyms(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, SymbolSamples.Place(64))
            .Build(SymbolSamples.Make(64));

        Assert.Equal(KernelSymbolSource.Kallsyms, SymbolSamples.Read(Image(tables).Build()).Source);
        Assert.Equal(KernelDiagnosticCodes.ElfBadSymbolTable, SymbolSamples.ReadBad(Image([]).Build()).Code);
    }
}
