using PvPatch.Linux.Symbols;

namespace PvPatch.Linux.Tests.Symbols;

/// <summary>System.map files and copies of /proc/kallsyms, good and bad.</summary>
public sealed class SymbolListingTests
{
    private static byte[] Ascii(string text) => System.Text.Encoding.ASCII.GetBytes(text);

    private static PatchDiagnostic Bad(string text)
    {
        Assert.False(KernelSymbols.TryReadSystemMap(Ascii(text), out KernelSymbols? symbols, out PatchDiagnostic? error));
        Assert.Null(symbols);
        Assert.False(KernelSymbols.TryReadKallsyms(Ascii(text), out _, out PatchDiagnostic? same));
        Assert.Equal(error, same);
        return error;
    }

    [Theory]
    [InlineData("c1000000 T _text\nc1000010 t do_one\n")]
    [InlineData("c1000000 T _text\r\nc1000010 t do_one\r\n")]
    [InlineData("c1000000 T _text\n\nc1000010 t do_one")]
    [InlineData("C1000010 t do_one\nC1000000 T _text\n")]
    public void Lines_are_read_in_any_order_with_any_line_ends(string text)
    {
        Assert.True(KernelSymbols.TryReadSystemMap(Ascii(text), out KernelSymbols? symbols, out _));
        Assert.Equal(KernelSymbolSource.SystemMap, symbols.Source);
        Assert.Equal([new KernelSymbol(0xc1000000, 'T', "_text"), new KernelSymbol(0xc1000010, 't', "do_one")], symbols.All);
    }

    [Fact]
    public void Symbols_of_one_address_keep_the_order_of_the_listing()
    {
        Assert.True(KernelSymbols.TryReadSystemMap("20 T b\n20 T a\n10 T z\n20 T c\n10 T y\n"u8, out KernelSymbols? symbols, out _));
        Assert.Equal(["z", "y", "b", "a", "c"], symbols.All.Select(static s => s.Name));
    }

    [Fact]
    public void What_belongs_to_modules_is_left_out()
    {
        string text = "ffffffff81000000 T _text\nffffffffc0000000 t init_module\t[virtio]\nffffffffc0001000 t bpf_prog_1\t[bpf]\n";
        Assert.True(KernelSymbols.TryReadKallsyms(Ascii(text), out KernelSymbols? symbols, out _));
        Assert.Equal(["_text"], symbols.All.Select(static s => s.Name));
        Assert.Equal(KernelSymbolSource.KallsymsListing, symbols.Source);
    }

    [Fact]
    public void The_stand_in_of_a_distribution_is_recognised()
    {
        PatchDiagnostic error = Bad("ffffffffffffffff B The real System.map is in the linux-image-6.1.0-42-amd64-dbg package\n");
        Assert.Equal(KernelDiagnosticCodes.SystemMapStub, error.Code);
        Assert.Contains("linux-image-6.1.0-42-amd64-dbg", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void Addresses_that_the_kernel_hides_are_recognised()
    {
        Assert.Equal(KernelDiagnosticCodes.SymbolAddressesHidden, Bad("0000000000000000 T _text\n0000000000000000 t do_one\n").Code);
    }

    [Theory]
    [InlineData("", 0)]
    [InlineData("\n\n", 0)]
    [InlineData("ffffffffc0000000 t init\t[virtio]\n", 0)]
    [InlineData("ffffffff81000000 T _text\nnonsense\n", 25)]
    [InlineData("ffffffff81000000 T _text\n                 U printk\n", 25)]
    [InlineData("ffffffff81000000 T\n", 0)]
    [InlineData("ffffffff81000000 T \n", 0)]
    [InlineData("ffffffff81000000 7 name\n", 0)]
    [InlineData("ffffffff81000000 TT name\n", 0)]
    [InlineData("ffffffff81000000 T two words\n", 0)]
    [InlineData("ffffffff81000000\tT name\n", 0)]
    [InlineData("ffffffff810000000 T seventeen_digits\n", 0)]
    [InlineData("0xffffffff81000000 T name\n", 0)]
    [InlineData(" ffffffff81000000 T name\n", 0)]
    [InlineData("ffffffff81000000 T na\0me\n", 0)]
    [InlineData("ffffffff81000000 T name []\n", 0)]
    [InlineData("ffffffff81000000 T na\u001b[31mme\n", 0)]
    [InlineData("\u007fELF", 0)]
    public void Other_text_is_refused_with_its_place(string text, int offset)
    {
        PatchDiagnostic error = Bad(text);
        Assert.Equal(KernelDiagnosticCodes.SymbolListingBad, error.Code);
        Assert.Equal(offset, error.FileOffset);
        Assert.DoesNotContain(error.ToString(), char.IsControl);
    }

    [Fact]
    public void A_name_that_is_not_ascii_is_refused()
    {
        byte[] text = [.. "10 T _text\n20 t na"u8, 0xc3, 0xa9, .. "\n"u8];
        Assert.False(KernelSymbols.TryReadSystemMap(text, out _, out PatchDiagnostic? error));
        Assert.Equal((KernelDiagnosticCodes.SymbolListingBad, 11L), (error.Code, error.FileOffset!.Value));
    }

    [Fact]
    public void A_name_may_be_long_but_not_endless()
    {
        string longest = new('n', 4095);
        Assert.True(KernelSymbols.TryReadSystemMap(Ascii($"10 T {longest}\n"), out KernelSymbols? symbols, out _));
        Assert.True(symbols.TryGetAddress(longest, out _));
        Assert.Equal(KernelDiagnosticCodes.SymbolListingBad, Bad($"10 T {longest}n\n").Code);
    }

    [Fact]
    public void The_same_name_a_million_times_is_no_trouble()
    {
        byte[] text = Ascii(string.Concat(Enumerable.Repeat("10 t n\n", 1_000_000)) + "20 T other\n");
        Assert.True(KernelSymbols.TryReadSystemMap(text, out KernelSymbols? symbols, out _));
        Assert.True(symbols.TryGetAddress("other", out VirtualAddress address));
        Assert.Equal(0x20ul, address.Value);
        Assert.Equal(1_000_000, symbols.FindAll("n").Count);
    }
}
