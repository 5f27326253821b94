using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Fuzz;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Symbols;

/// <summary>Damaged symbols of all sources.</summary>
public sealed class SymbolFuzzTests
{
    private const int Usual = 4000;

    [Fact]
    public void Kallsyms_survives_damage()
    {
        byte[][] valid =
        [
            Image(KallsymsLayout.Linux510, KallsymsNumbers.PerCpuAbsolute, 64),
            Image(KallsymsLayout.Linux62, KallsymsNumbers.BaseRelative, 32),
            Image(KallsymsLayout.Linux64, KallsymsNumbers.BaseRelative, 64),
            Image(KallsymsLayout.Linux70, KallsymsNumbers.PlaceRelative, 64),
            Image(KallsymsLayout.Linux70, KallsymsNumbers.Absolute, 32),
        ];
        FuzzRun.Run(valid, FuzzRun.Count(Usual), ReadImage, 16, 256 << 10);
    }

    [Fact]
    public void Symbol_tables_survive_damage()
    {
        byte[] Elf(int bitness) => new TestElf(bitness)
            .Code(".text", SymbolSamples.Text(bitness), new byte[64])
            .Symbols(
                ("start", SymbolSamples.Text(bitness), 4, ElfSymbolType.Function, 1),
                ("other", SymbolSamples.Text(bitness), 4, ElfSymbolType.None, 1),
                ("fixed", 0x1234, 0, ElfSymbolType.Data, 0xfff1))
            .Build();
        FuzzRun.Run([Elf(64), Elf(32)], FuzzRun.Count(Usual), ReadImage, 32, 256 << 10);
    }

    [Fact]
    public void Listings_survive_damage()
    {
        byte[] map = System.Text.Encoding.ASCII.GetBytes(
            string.Concat(SymbolSamples.Make(64, functions: 60).Select(static s => $"{s.Address:x16} {s.Type} {s.Name}\n"))
                + "ffffffffc0000000 t init\t[virtio]\n");
        FuzzRun.Run([map], FuzzRun.Count(Usual), ReadMap, 16, 128 << 10);
    }

    private static PatchDiagnostic? ReadImage(byte[] file)
    {
        if (!ElfImage.TryRead(file, out ElfImage? image, out PatchDiagnostic? error)
            || !KernelSymbols.TryFromImage(image, out KernelSymbols? symbols, out error))
        {
            return error;
        }

        Use(symbols);
        return null;
    }

    private static PatchDiagnostic? ReadMap(byte[] text)
    {
        if (!KernelSymbols.TryReadSystemMap(text, out KernelSymbols? symbols, out PatchDiagnostic? error))
        {
            return error;
        }

        Use(symbols);
        return null;
    }

    private static void Use(KernelSymbols symbols)
    {
        Assert.True(symbols.Count > 0);
        for (int i = 0; i < symbols.Count; i += 1 + (symbols.Count / 16))
        {
            KernelSymbol symbol = symbols[i];
            Assert.NotEmpty(symbol.Name);
            Assert.True(symbols.TryGetAddress(symbol.Name, out _));
            Assert.True(symbols.TryGetName(symbol.Address, out string? name, out long offset));
            Assert.Equal(0, offset);
            Assert.NotEmpty(name);
            _ = symbols.TryGetName(symbol.Address + 1, out _, out _);
            _ = symbols.TryResolve(symbol.Name + "+0x10", out _, out _);
        }
    }

    private static byte[] Image(KallsymsLayout layout, KallsymsNumbers numbers, int bitness) =>
        SymbolSamples.Build(
            layout, numbers, bitness, SymbolSamples.Make(bitness, numbers == KallsymsNumbers.PerCpuAbsolute, functions: 300));
}
