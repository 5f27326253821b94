using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Symbols;

/// <summary>A made-up kernel: its symbols, and images that hold them as kallsyms.</summary>
internal static class SymbolSamples
{
    public const int TextSize = 0x8000;

    public static ulong Text(int bitness) => bitness == 64 ? 0xffffffff81000000 : 0xc1000000;

    public static ulong ReadOnlyData(int bitness) => Text(bitness) + 0x400000;

    /// <summary>Symbols by address. <c>_text</c> is first, or first after the per-CPU ones at 0.</summary>
    public static List<(ulong Address, char Type, string Name)> Make(
        int bitness, bool perCpuAtZero = false, int functions = 700, int longest = 100)
    {
        ulong text = Text(bitness);
        List<(ulong Address, char Type, string Name)> symbols = perCpuAtZero
            ? [(0, 'A', "fixed_percpu_data"), (0x1000, 'D', "cpu_info")] : [];
        symbols.AddRange([(text, 'T', "_stext"), (text, 'T', "_text"), (text, 't', "first_function")]);
        for (int i = 1; i < functions; i++)
        {
            string name = (i % 5) switch
            {
                0 => $"paravirt_nop_{i}",
                1 => $"do_sys_read_{i}",
                2 => $"static_writer_ops_of_{i % 50}",
                3 => $"caller.isra.{i}",
                _ => $"__x{i}",
            };
            symbols.Add((text + ((ulong)i * 32), i % 5 is 2 or 3 ? 't' : 'T', name));
        }

        // Names that no token shortens.
        symbols.Add((text + 0x7fe0, 'W', string.Concat(Enumerable.Range(0, longest).Select(static i => (char)('A' + (i % 26))))));
        symbols.Add((ReadOnlyData(bitness), 'R', "__start_rodata"));
        symbols.Add((ReadOnlyData(bitness), 'r', "table"));
        symbols.Add((ReadOnlyData(bitness) + 0x100, 'D', "pv_ops"));
        return symbols;
    }

    /// <summary>An image with these bytes in its read-only data, behind other bytes and before more.</summary>
    public static TestElf Image(int bitness, byte[] kallsyms)
    {
        byte[] before = new byte[0x200];
        for (int i = 0; i < before.Length; i++)
        {
            before[i] = (byte)(i * 7);
        }

        return new TestElf(bitness)
            .Code(".text", Text(bitness), new byte[TextSize])
            .Data(".rodata", ReadOnlyData(bitness), [.. before, .. kallsyms, .. before]);
    }

    /// <summary>Where the tables stand in <see cref="Image"/>.</summary>
    public static ulong Place(int bitness) => ReadOnlyData(bitness) + 0x200;

    public static byte[] Build(
        KallsymsLayout layout, KallsymsNumbers numbers, int bitness, IReadOnlyList<(ulong Address, char Type, string Name)> symbols) =>
        Image(bitness, new TestKallsyms(layout, numbers, bitness, Place(bitness)).Build(symbols)).Build();

    public static KernelSymbols Read(byte[] file) =>
        KernelSymbols.TryFromImage(ElfImage.Read(file), out KernelSymbols? symbols, out PatchDiagnostic? error)
            ? symbols : throw new PatchException(error);

    public static PatchDiagnostic ReadBad(byte[] file)
    {
        Assert.False(KernelSymbols.TryFromImage(ElfImage.Read(file), out KernelSymbols? symbols, out PatchDiagnostic? error));
        Assert.Null(symbols);
        return error;
    }
}
