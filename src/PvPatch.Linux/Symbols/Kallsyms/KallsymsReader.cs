using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>
/// Finds and checks the kernel's own symbols in an image without symbols: tokens, then names, then addresses, by structure alone. What is
/// known of the forms is from the sources of 5.10 to 7.2 (<c>scripts/kallsyms.c</c>, <c>kernel/kallsyms.c</c>) and was compared with booted
/// kernels.
/// </summary>
internal static class KallsymsReader
{
    // Real images take less than two steps a byte. The fixed part is for images that are small.
    private const long StepsPerByte = 8;
    private const long FixedSteps = 1 << 20;

    // Some linkers' images have many sections of code; one of the first is where _text lies.
    private const int MostCodeStarts = 64;

    public static bool TryRead(
        ElfImage image, [NotNullWhen(true)] out KallsymsStore? store, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        store = null;
        error = image.Type == ElfFileType.Relocatable ? Relocatable() : null;
        if (error is not null)
        {
            return false;
        }

        var budget = new WorkBudget(FixedSteps + (StepsPerByte * image.File.Length));
        ulong[] codeStarts = CodeStarts(image);
        foreach (KallsymsRegion region in Regions(image))
        {
            KallsymsTokens? tokens = null;
            while ((tokens = KallsymsTokens.FindNext(region, tokens?.IndexEnd ?? 0, budget)) is not null)
            {
                KallsymsNames? names = new KallsymsNamesFinder(region, tokens, budget).Find();
                store = names is null ? null : new KallsymsAddressFinder(region, tokens, names, codeStarts).Find();
                if (store is not null)
                {
                    error = null;
                    return true;
                }

                error = names is not null ? BadAddresses(region, tokens, names) : error ?? BadNames(region, tokens);
            }
        }

        error ??= NotFound(image);
        return false;
    }

    /// <summary>
    /// The loaded sections, those of data first: kallsyms is in <c>.rodata</c>. Without section headers, the loaded segments.
    /// </summary>
    private static IEnumerable<KallsymsRegion> Regions(ElfImage image)
    {
        bool is64 = image.Bitness == 64;
        KallsymsRegion[] regions =
        [
            .. image.Sections
                .Where(static s => s.IsAllocated && s.HasFileContent && s.Size > 0)
                .OrderBy(static s => s.IsExecutable)
                .Select(s => new KallsymsRegion(image.GetBytes(s), s.Address.Value, s.FileOffset, s.Name, is64)),
        ];
        return regions.Length > 0
            ? regions
            : image.Segments
                .Where(static s => s.Type == ElfSegmentType.Load && s.FileSize > 0)
                .Select(s => new KallsymsRegion(
                    image.File.Slice((int)s.FileOffset, (int)s.FileSize), s.Address.Value, s.FileOffset, "a segment", is64));
    }

    private static ulong[] CodeStarts(ElfImage image)
    {
        IEnumerable<ulong> starts = image.Sections.Any(static s => s.IsAllocated)
            ? image.Sections.Where(static s => s.IsAllocated && s.IsExecutable).Select(static s => s.Address.Value)
            : image.Segments.Where(static s => s.Type == ElfSegmentType.Load && (s.Flags & ElfSegmentAccess.Execute) != 0)
                .Select(static s => s.Address.Value);
        return [.. starts.Take(MostCodeStarts)];
    }

    private static PatchDiagnostic Relocatable() =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.SymbolsOfRelocatable, "The file is relocatable, so its symbols have no addresses") with
        {
            Found = "a relocatable ELF file, such as a kernel module",
            Expected = "an executable kernel",
            Help = "Give the kernel's vmlinux or vmlinuz",
        };

    private static PatchDiagnostic NotFound(ElfImage image) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.KallsymsNotFound, "The image holds no kernel symbols (kallsyms)") with
        {
            Found = $"no table of 256 tokens in {image.Sections.Count} sections",
            Expected = "the tables of a kernel with CONFIG_KALLSYMS, 4.20 or later",
            Help = "Give the System.map of this kernel, or its /proc/kallsyms",
        };

    private static PatchDiagnostic BadNames(KallsymsRegion region, KallsymsTokens tokens) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.KallsymsBadNames,
            $"The kernel symbols in {region.Name} have tokens, but no names that agree with them") with
        {
            Address = region.Address + (ulong)tokens.TableOffset,
            FileOffset = region.FileOffset + tokens.TableOffset,
            Found = "a table of tokens",
            Expected = "before it a number of symbols, as many names, and the offset of every 256th of them",
            Help = "The image is damaged, or of a kernel before 4.20; give its System.map",
        };

    private static PatchDiagnostic BadAddresses(KallsymsRegion region, KallsymsTokens tokens, KallsymsNames names) =>
        PatchDiagnostic.Error(
            KernelDiagnosticCodes.KallsymsBadAddresses, $"The addresses of the kernel symbols in {region.Name} cannot be read") with
        {
            Address = region.Address + (ulong)tokens.TableOffset,
            FileOffset = region.FileOffset + names.CountOffset,
            Found = $"{names.Count} names",
            Expected =
                $"as many ascending addresses before the names or behind "
                + $"{FileRange.Hex((ulong)(region.FileOffset + tokens.IndexEnd))}, with _text or _stext at the start of a section of code",
            Help = "The image is damaged, or its kallsyms of a form that is not known; give its System.map",
        };
}
