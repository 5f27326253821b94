using PvPatch.Linux.Symbols;

namespace PvPatch.Linux.Tests.Symbols;

/// <summary>Questions to symbols: which name, which address.</summary>
public sealed class KernelSymbolsTests
{
    private const string Map = """
        0000000000001000 D early_percpu
        ffffffff81000000 T startup_64
        ffffffff81000000 T _stext
        ffffffff81000000 T _text
        ffffffff81000100 t worker
        ffffffff81000200 t nop_alias
        ffffffff81000200 W nop_weak
        ffffffff81000200 T _paravirt_nop
        ffffffff81000200 T __pi__paravirt_nop
        ffffffff81000300 T __entry_text_start
        ffffffff81000300 t entry.isra.0
        ffffffff81000300 t entry
        ffffffff81000400 t worker
        ffffffff81000480 d worker
        ffffffff81000500 T worker_pool
        ffffffff81000600 d pool
        ffffffff81000600 D pool_global
        ffffffff81000700 T _etext

        """;

    private static KernelSymbols Read(string map) =>
        KernelSymbols.TryReadSystemMap(System.Text.Encoding.ASCII.GetBytes(map), out KernelSymbols? symbols, out PatchDiagnostic? error)
            ? symbols : throw new PatchException(error);

    [Theory]
    [InlineData(0xffffffff81000000, "startup_64", 0)]
    [InlineData(0xffffffff81000010, "startup_64", 0x10)]
    [InlineData(0xffffffff81000200, "_paravirt_nop", 0)]
    [InlineData(0xffffffff810002ff, "_paravirt_nop", 0xff)]
    [InlineData(0xffffffff81000300, "entry", 0)]
    [InlineData(0xffffffff81000600, "pool_global", 0)]
    [InlineData(0xffffffff81000700, "_etext", 0)]
    [InlineData(0x1000, "early_percpu", 0)]
    public void An_address_has_the_name_one_would_write(ulong address, string name, long offset)
    {
        Assert.True(Read(Map).TryGetName(address, out string? found, out long distance));
        Assert.Equal((name, offset), (found, distance));
    }

    [Theory]
    [InlineData(0xfff)]
    [InlineData(0)]
    [InlineData(0xffffffff81000701)]
    [InlineData(ulong.MaxValue)]
    public void An_address_outside_all_symbols_has_no_name(ulong address)
    {
        Assert.False(Read(Map).TryGetName(address, out string? name, out long offset));
        Assert.Null(name);
        Assert.Equal(0, offset);
    }

    [Fact]
    public void Of_several_symbols_of_one_name_functions_come_first_then_the_lowest_address()
    {
        KernelSymbols symbols = Read(Map);
        Assert.True(symbols.TryGetAddress("worker", out VirtualAddress address));
        Assert.Equal(0xffffffff81000100, address.Value);
        Assert.Equal(
            [0xffffffff81000100, 0xffffffff81000400, 0xffffffff81000480], symbols.FindAll("worker").Select(static s => s.Address.Value));

        Assert.True(Read("1000 d x\n2000 t x\n3000 T x\n4000 T x\n").TryGetAddress("x", out address));
        Assert.Equal(0x3000ul, address.Value);
    }

    [Fact]
    public void Unknown_names_are_not_found()
    {
        KernelSymbols symbols = Read(Map);
        Assert.False(symbols.TryGetAddress("work", out VirtualAddress address));
        Assert.True(address.IsZero);
        Assert.Empty(symbols.FindAll("workers"));
        Assert.Empty(symbols.FindAt(0xffffffff81000001));
        Assert.Equal(["startup_64", "_stext", "_text"], symbols.FindAt(0xffffffff81000000).Select(static s => s.Name));
    }

    [Theory]
    [InlineData("worker_pool", 0xffffffff81000500)]
    [InlineData("worker_pool+0x12", 0xffffffff81000512)]
    [InlineData("worker_pool+18", 0xffffffff81000512)]
    [InlineData("worker_pool+0x12/0x40", 0xffffffff81000512)]
    [InlineData(" worker_pool+0X1F ", 0xffffffff8100051f)]
    public void A_place_is_found(string place, ulong expected)
    {
        Assert.True(Read(Map).TryResolve(place, out VirtualAddress address, out PatchDiagnostic? error));
        Assert.Null(error);
        Assert.Equal(expected, address.Value);
    }

    [Theory]
    [InlineData("", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("+0x10", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("worker+", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("worker+0x", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("worker+zz", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("worker+-1", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("worker+0x10/", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("worker+0x11111111111111111", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("two words", KernelDiagnosticCodes.SymbolPlaceBad)]
    [InlineData("Worker", KernelDiagnosticCodes.SymbolUnknown)]
    [InlineData("nobody+0x10", KernelDiagnosticCodes.SymbolUnknown)]
    public void A_place_that_is_none_is_refused(string place, string code)
    {
        Assert.False(Read(Map).TryResolve(place, out VirtualAddress address, out PatchDiagnostic? error));
        Assert.True(address.IsZero);
        Assert.Equal(code, error!.Code);
    }

    [Fact]
    public void In_an_image_a_symbol_names_nothing_in_another_section()
    {
        KernelSymbols symbols = SymbolSamples.Read(
            SymbolSamples.Build(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64, SymbolSamples.Make(64)));
        ulong text = SymbolSamples.Text(64);
        Assert.True(symbols.TryGetName(text + SymbolSamples.TextSize - 1, out _, out long offset));
        Assert.Equal(0x1f, offset);
        Assert.False(symbols.TryGetName(text + SymbolSamples.TextSize, out _, out _));
        Assert.True(symbols.TryGetName(SymbolSamples.ReadOnlyData(64) + 8, out string? name, out offset));
        Assert.Equal(("table", 8L), (name, offset));
    }

    [Fact]
    public void Every_symbol_is_found_by_its_name_and_by_its_address()
    {
        KernelSymbols symbols = SymbolSamples.Read(
            SymbolSamples.Build(KallsymsLayout.Linux510, KallsymsNumbers.PerCpuAbsolute, 64, SymbolSamples.Make(64, perCpuAtZero: true)));
        foreach (KernelSymbol symbol in symbols.All)
        {
            Assert.Contains(symbol, symbols.FindAll(symbol.Name));
            Assert.Contains(symbol, symbols.FindAt(symbol.Address));
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => symbols[symbols.Count]);
        Assert.Throws<ArgumentOutOfRangeException>(() => symbols[-1]);
    }
}
