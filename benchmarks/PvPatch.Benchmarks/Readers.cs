using System.Diagnostics;
using System.Globalization;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;

namespace PvPatch.Benchmarks;

/// <summary>
/// How fast the readers of kernel images are, on an image that is named: megabytes of the table in a second, best of several rounds.
/// </summary>
internal static class Readers
{
    private const int Rounds = 20;

    public static int Run(string path)
    {
        if (!KernelFile.TryLoad(path, null, out LoadedKernelFile? file, out PatchDiagnostic? error)
            || !ElfImage.TryRead(file.Image, out ElfImage? elf, out error))
        {
            Console.Error.WriteLine(error);
            return 2;
        }

        double copy = Measure(elf.File.Length, () => elf.File.Span.ToArray());
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{"copy of the image, for comparison",-40}{elf.File.Length / 1e6,10:F1} MB {copy,10:F0} MB/s {1,8:F3}"));
        Row("ELF headers and section names", 0, elf.Sections.Count * 64, () => _ = ElfImage.Read(elf.File));
        if (elf.TryGetSection(".BTF", out ElfSection? btf))
        {
            Row("BTF: indexed, one struct laid flat", copy, (long)btf.Size,
                () => _ = BtfStructLayout.TryRead(elf.GetBytes(btf), BtfStructLayout.PatchTemplate, out _, out _));
        }

        if (elf.TryGetSection(AltInstrTable.SectionName, out ElfSection? alternatives))
        {
            Row("alternatives: layout found, all decoded", copy, (long)alternatives.Size,
                () => _ = AltInstrTable.TryRead(elf, out _, out _));
        }

        if (KernelSymbols.TryFromKallsyms(elf, out KernelSymbols? symbols, out _))
        {
            long bytes = symbols.All.Sum(static s => 11L + s.Name.Length); // as /proc/kallsyms would be: address, type, name
            Row("kallsyms: found and checked", copy, bytes, () => _ = KernelSymbols.TryFromKallsyms(elf, out _, out _));
            Row("kallsyms: every name decoded", copy, bytes, () => _ = symbols.All.Count());
        }

        return 0;
    }

    private static void Row(string name, double copy, long bytes, Action action)
    {
        double speed = Measure(bytes, action);
        string ratio = copy == 0 ? "" : (speed / copy).ToString("F3", CultureInfo.InvariantCulture);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name,-40}{bytes / 1e6,10:F3} MB {speed,10:F0} MB/s {ratio,8}"));
    }

    private static double Measure(long bytes, Action action)
    {
        long best = long.MaxValue;
        for (int i = 0; i < Rounds; i++)
        {
            long start = Stopwatch.GetTimestamp();
            action();
            best = Math.Min(best, Stopwatch.GetTimestamp() - start);
        }

        return bytes / 1e6 / ((double)best / Stopwatch.Frequency);
    }
}
