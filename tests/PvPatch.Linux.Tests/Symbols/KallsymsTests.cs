using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Symbols;

/// <summary>The kernel's own symbols, decoded from images in every layout.</summary>
public sealed class KallsymsTests
{
    public static TheoryData<KallsymsLayout, KallsymsNumbers, int> Layouts => new()
    {
        { KallsymsLayout.Linux510, KallsymsNumbers.PerCpuAbsolute, 64 },
        { KallsymsLayout.Linux510, KallsymsNumbers.BaseRelative, 64 },
        { KallsymsLayout.Linux510, KallsymsNumbers.BaseRelative, 32 },
        { KallsymsLayout.Linux62, KallsymsNumbers.PerCpuAbsolute, 64 },
        { KallsymsLayout.Linux62, KallsymsNumbers.BaseRelative, 32 },
        { KallsymsLayout.Linux64, KallsymsNumbers.PerCpuAbsolute, 64 },
        { KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64 },
        { KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 32 },
        { KallsymsLayout.Linux70, KallsymsNumbers.PlaceRelative, 64 },
        { KallsymsLayout.Linux70, KallsymsNumbers.PlaceRelative, 32 },
        { KallsymsLayout.Linux70, KallsymsNumbers.Absolute, 32 },
    };

    [Theory]
    [MemberData(nameof(Layouts))]
    public void Every_symbol_of_every_layout_is_decoded(KallsymsLayout layout, KallsymsNumbers numbers, int bitness)
    {
        // Numbers of symbols around a marker, and sizes that leave all kinds of filling between the tables.
        foreach (int functions in (int[])[400, 505, 506, 507, 508, 701, 702, 703])
        {
            List<(ulong Address, char Type, string Name)> symbols = SymbolSamples.Make(
                bitness, numbers == KallsymsNumbers.PerCpuAbsolute, functions, 90 + (functions % 9));
            KernelSymbols read = SymbolSamples.Read(SymbolSamples.Build(layout, numbers, bitness, symbols));

            Assert.Equal(KernelSymbolSource.Kallsyms, read.Source);
            Assert.Equal(symbols, read.All.Select(static s => (s.Address.Value, s.Type, s.Name)));
            Assert.Equal(symbols.Count, read.Count);
        }
    }

    [Theory]
    [InlineData(KallsymsLayout.Linux62, KallsymsNumbers.PerCpuAbsolute, 127)]
    [InlineData(KallsymsLayout.Linux62, KallsymsNumbers.PerCpuAbsolute, 128)]
    [InlineData(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 300)]
    [InlineData(KallsymsLayout.Linux70, KallsymsNumbers.PlaceRelative, 510)]
    [InlineData(KallsymsLayout.Linux510, KallsymsNumbers.PerCpuAbsolute, 200)]
    public void Names_of_more_than_127_bytes_are_decoded(KallsymsLayout layout, KallsymsNumbers numbers, int length)
    {
        List<(ulong Address, char Type, string Name)> symbols = SymbolSamples.Make(64, longest: length);
        KernelSymbols read = SymbolSamples.Read(SymbolSamples.Build(layout, numbers, 64, symbols));

        string name = symbols.Single(s => s.Type == 'W').Name;
        Assert.Equal(length, name.Length);
        Assert.True(read.TryGetAddress(name, out VirtualAddress address));
        Assert.Equal(SymbolSamples.Text(64) + 0x7fe0, address.Value);
        Assert.Equal(symbols, read.All.Select(static s => (s.Address.Value, s.Type, s.Name)));
    }

    [Theory]
    [InlineData(KallsymsLayout.Linux510, KallsymsNumbers.PerCpuAbsolute)]
    [InlineData(KallsymsLayout.Linux70, KallsymsNumbers.PlaceRelative)]
    public void A_file_without_section_headers_is_searched_by_segments(KallsymsLayout layout, KallsymsNumbers numbers)
    {
        List<(ulong Address, char Type, string Name)> symbols = SymbolSamples.Make(64);
        byte[] tables = new TestKallsyms(layout, numbers, 64, SymbolSamples.Place(64)).Build(symbols);
        byte[] file = SymbolSamples.Image(64, tables).Load(".text", ".text").Load(".rodata", ".rodata").Build();
        file = file.With64(40, 0).With16(60, 0).With16(62, 0);

        Assert.Empty(ElfImage.Read(file).Sections);
        KernelSymbols read = SymbolSamples.Read(file);
        Assert.Equal(symbols, read.All.Select(static s => (s.Address.Value, s.Type, s.Name)));
    }

    [Fact]
    public void Tables_that_only_look_right_are_passed_over()
    {
        List<(ulong Address, char Type, string Name)> symbols = SymbolSamples.Make(64);
        var decoy = new TestKallsyms(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, SymbolSamples.Place(64));
        byte[] decoyBytes = decoy.Build(symbols);

        // Tokens alone; tokens with names that do not fit; all, but with addresses of another kernel.
        byte[] tokensOnly = decoyBytes[decoy.Offsets["token_table"]..decoy.Offsets["offsets"]];
        byte[] badNames = [.. decoyBytes];
        badNames[decoy.Offsets["names"]] ^= 1;
        byte[] badAddresses = decoyBytes.With64(decoy.Offsets["relative_base"], 0xffffffff91000000);
        byte[] decoys = Padded([.. Padded(tokensOnly), .. Padded(badNames), .. Padded(badAddresses)]);
        ulong place = SymbolSamples.Place(64) + (ulong)decoys.Length;
        byte[] real = new TestKallsyms(KallsymsLayout.Linux70, KallsymsNumbers.PlaceRelative, 64, place).Build(symbols);

        KernelSymbols read = SymbolSamples.Read(SymbolSamples.Image(64, [.. decoys, .. real]).Build());
        Assert.Equal(symbols, read.All.Select(static s => (s.Address.Value, s.Type, s.Name)));
    }

    [Fact]
    public void An_image_without_kallsyms_says_so()
    {
        PatchDiagnostic error = SymbolSamples.ReadBad(SymbolSamples.Image(64, new byte[0x4000]).Build());
        Assert.Equal(KernelDiagnosticCodes.KallsymsNotFound, error.Code);
        Assert.Contains("System.map", error.Help, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("num_syms", 0, KernelDiagnosticCodes.KallsymsBadNames)]
    [InlineData("names", 0, KernelDiagnosticCodes.KallsymsBadNames)]
    [InlineData("markers", 4, KernelDiagnosticCodes.KallsymsBadNames)]
    [InlineData("token_table", 0, KernelDiagnosticCodes.KallsymsNotFound)]
    [InlineData("token_index", 100, KernelDiagnosticCodes.KallsymsNotFound)]
    [InlineData("offsets", 403, KernelDiagnosticCodes.KallsymsBadAddresses)]
    [InlineData("relative_base", 2, KernelDiagnosticCodes.KallsymsBadAddresses)]
    public void A_damaged_table_is_named(string table, int offset, string code)
    {
        var tables = new TestKallsyms(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, SymbolSamples.Place(64));
        byte[] bytes = tables.Build(SymbolSamples.Make(64));

        // 0x40 more: another length or number, and no string where a token should be.
        bytes[tables.Offsets[table] + offset] = table == "token_table" ? (byte)0 : (byte)(bytes[tables.Offsets[table] + offset] + 0x40);
        PatchDiagnostic error = SymbolSamples.ReadBad(SymbolSamples.Image(64, bytes).Build());
        Assert.Equal(code, error.Code);
        Assert.Equal(code == KernelDiagnosticCodes.KallsymsNotFound, error.FileOffset is null);
    }

    [Theory]
    [InlineData(' ')]
    [InlineData('\u007f')]
    public void A_name_that_is_not_printable_is_refused(char bad)
    {
        List<(ulong Address, char Type, string Name)> symbols = SymbolSamples.Make(64);
        symbols[300] = symbols[300] with { Name = "bad" + bad };
        PatchDiagnostic error = SymbolSamples.ReadBad(
            SymbolSamples.Build(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, symbols));
        Assert.Equal(KernelDiagnosticCodes.KallsymsBadNames, error.Code);
    }

    [Fact]
    public void A_name_longer_than_any_kernel_writes_is_refused()
    {
        List<(ulong Address, char Type, string Name)> symbols = SymbolSamples.Make(64, longest: 600);
        PatchDiagnostic error = SymbolSamples.ReadBad(
            SymbolSamples.Build(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, symbols));
        Assert.Equal(KernelDiagnosticCodes.KallsymsBadNames, error.Code);
    }

    [Fact]
    public void Addresses_must_put_the_start_of_code_where_code_starts()
    {
        List<(ulong Address, char Type, string Name)> symbols = [
            .. SymbolSamples.Make(64).Where(static s => s.Name is not ("_text" or "_stext"))];
        PatchDiagnostic error = SymbolSamples.ReadBad(
            SymbolSamples.Build(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, symbols));
        Assert.Equal(KernelDiagnosticCodes.KallsymsBadAddresses, error.Code);
    }

    [Fact]
    public void A_module_has_no_addresses_and_so_no_symbols()
    {
        byte[] module = new TestElf(64, ElfFileType.Relocatable).Code(".text", 0, new byte[16])
            .Symbols(("init", 0, 4, ElfSymbolType.Function, 1)).Build();
        Assert.Equal(KernelDiagnosticCodes.SymbolsOfRelocatable, SymbolSamples.ReadBad(module).Code);
    }

    [Fact]
    public void An_image_full_of_false_tables_is_given_up()
    {
        // Rows of numbers that could be offsets of tokens, each a candidate that has to be looked at.
        byte[] rows = new byte[4 << 20];
        for (int i = 0; i < rows.Length / 2; i++)
        {
            int value = i % 256 * 3;
            rows[i * 2] = (byte)value;
            rows[(i * 2) + 1] = (byte)(value >> 8);
        }

        Assert.Equal(KernelDiagnosticCodes.KallsymsNotFound, SymbolSamples.ReadBad(SymbolSamples.Image(64, rows).Build()).Code);
    }

    [Fact]
    public void Bytes_changed_behind_its_back_give_wrong_names_and_nothing_worse()
    {
        byte[] file = SymbolSamples.Build(KallsymsLayout.Linux70, KallsymsNumbers.PlaceRelative, 64, SymbolSamples.Make(64));
        KernelSymbols read = SymbolSamples.Read(file);
        file.AsSpan(64).Fill(0xff);

        Assert.Equal(read.Count, read.All.Count());
        Assert.False(read.TryGetAddress("pv_ops", out _));
        _ = read.TryGetName(SymbolSamples.Text(64) + 1, out _, out _);
    }

    private static byte[] Padded(byte[] bytes) => [.. bytes, .. new byte[16 - (bytes.Length % 16)]];
}
