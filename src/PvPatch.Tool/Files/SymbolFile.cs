using System.Globalization;
using System.Text;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;

namespace PvPatch.Tool.Files;

/// <summary>Reads symbols from a file beside the image.</summary>
internal static class SymbolFile
{
    // Kernels with everything built in have some 20 MB.
    private const int Largest = 64 << 20;

    /// <exception cref="ToolFailure">The file cannot be read.</exception>
    public static KernelSymbols ReadSystemMap(string path) =>
        KernelSymbols.TryReadSystemMap(
            InputFile.Read(path, "--system-map", Largest).Span, out KernelSymbols? symbols, out PatchDiagnostic? error)
            ? symbols
            : throw new ToolFailure(error with { Source = path });

    /// <summary>Reads a copy of /proc/kallsyms and takes KASLR out of it, by the start of the kernel's code.</summary>
    /// <exception cref="ToolFailure">The file cannot be read.</exception>
    public static KernelSymbols ReadKallsyms(string path, ElfImage elf)
    {
        if (!KernelSymbols.TryReadKallsyms(
            InputFile.Read(path, "--kallsyms", Largest).Span, out KernelSymbols? symbols, out PatchDiagnostic? error))
        {
            throw new ToolFailure(error with { Source = path });
        }

        if (!symbols.TryGetAddress("_text", out VirtualAddress start) || !elf.TryGetSection(".text", out ElfSection? text)
            || start == text.Address)
        {
            return symbols;
        }

        ulong slide = unchecked(start.Value - text.Address.Value);
        return KernelSymbols.TryReadKallsyms(Moved(symbols, start.Value, slide), out KernelSymbols? moved, out error)
            ? moved
            : throw new ToolFailure(error with { Source = path });
    }

    // Offsets in the per-CPU area and other absolute values lie before the kernel and do not move with it.
    private static byte[] Moved(KernelSymbols symbols, ulong start, ulong slide)
    {
        var text = new StringBuilder();
        foreach (KernelSymbol symbol in symbols.All)
        {
            ulong address = symbol.Address.Value < start ? symbol.Address.Value : unchecked(symbol.Address.Value - slide);
            text.Append(CultureInfo.InvariantCulture, $"{address:x16} {symbol.Type} {symbol.Name}\n");
        }

        return System.Text.Encoding.ASCII.GetBytes(text.ToString());
    }
}
