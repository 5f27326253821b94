using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Layouts;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux;

/// <summary>Makes an image of a kernel's ELF file: finds its era, layout and sites and the content of its ops table on disk.</summary>
internal static class KernelImageReader
{
    /// <summary>
    /// Reads an image; see <see cref="KernelImage.TryOpen(ElfImage, KernelOptions, out KernelImage, out PatchDiagnostic)"/>.
    /// </summary>
    public static bool TryRead(
        ElfImage elf, KernelOptions? options, [NotNullWhen(true)] out KernelImage? image, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(elf);
        options ??= new KernelOptions();
        image = null;
        if (elf.Type == ElfFileType.Relocatable)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ElfNotSupported, "the file is not linked: its code and tables have no addresses yet") with
            {
                Found = "a relocatable file, as a module is",
                Expected = "a vmlinux or vmlinuz",
            };
            return false;
        }

        if (!KernelEraDetector.TryFindSource(elf, out SiteSource source, out error))
        {
            return false;
        }

        KernelSymbols? symbols = options.Symbols ?? (KernelSymbols.TryFromImage(elf, out KernelSymbols? own, out _) ? own : null);
        CodeImage code = elf.ToCode();
        if (!TryFindLayoutAndEra(
            elf, code, source, options, symbols, out FoundLayout? found, out KernelEra? era, out SiteEvidence? evidence, out error))
        {
            return false;
        }

        OpsLayout layout = found.Layout;
        AltInstrTable? alternatives = null;
        if (era.Alternatives is not null && !AltInstrTable.TryRead(elf, out alternatives, out error))
        {
            return false;
        }

        var table = new NativeTable(elf, symbols);
        if (!TryFindSites(elf, code, era, found, alternatives, symbols, evidence, table, out KernelSites? sites, out error)
            || !table.TryRead(layout, sites.SlotWords, out SlotTargets? targets, out error))
        {
            return false;
        }

        image = new KernelImage(elf, code, era, layout, sites, targets)
        {
            Alternatives = alternatives,
            Symbols = symbols,
            LayoutsAlike = found.Alike,
        };
        return true;
    }

    /// <summary>The layout and the era: from the caller, else from the image's type information, else from its sites and tables.</summary>
    private static bool TryFindLayoutAndEra(
        ElfImage elf,
        CodeImage code,
        SiteSource source,
        KernelOptions options,
        KernelSymbols? symbols,
        [NotNullWhen(true)] out FoundLayout? found,
        [NotNullWhen(true)] out KernelEra? era,
        out SiteEvidence? evidence,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        found = options.Layout is OpsLayout given ? new FoundLayout(given, KernelLayouts.LockTableOf(given, symbols)) : null;
        era = options.Era;
        evidence = null;
        if (!Agree(elf, source, options, out error))
        {
            return false;
        }

        bool asksSites = options.Layout is not null || era is { Placement: not SlotPlacement.OneTable }
            || !elf.TryGetSection(KernelLayoutReader.Section, out _);
        return !(source == SiteSource.ParaInstructions && asksSites && !SiteEvidence.TryRead(elf, code, out evidence, out error))
            && (found is not null || KernelLayoutReader.TryRead(elf, symbols, evidence, era, out found, out error))
            && (era is not null || KernelEraDetector.TryDetect(elf, source, found.Layout, evidence, symbols, out era, out error));
    }

    /// <summary>Whether the image agrees with the facts that the caller gives.</summary>
    private static bool Agree(ElfImage elf, SiteSource source, KernelOptions options, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (options.Layout is OpsLayout layout && KernelLayouts.BitnessOf(layout) is int bitness and not 0 && bitness != elf.Bitness)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.LayoutWrongBitness, $"the layout {layout.Name} is of a {bitness}-bit kernel") with
            {
                Found = $"{bitness} bits",
                Expected = $"{elf.Bitness} bits, as the image has",
            };
        }
        else if (options.Era is KernelEra era && era.Source != source)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.EraWrongSource, $"the image is not of the era {era}") with
            {
                Found = source == SiteSource.ParaInstructions
                    ? $"sites in {KernelEraDetector.SiteTableSection}" : $"sites in {AltInstrTable.SectionName}",
                Expected = string.Join(", ", KernelEra.All.Where(e => e.Source == source)),
            };
        }

        return error is null;
    }

    private static bool TryFindSites(
        ElfImage elf,
        CodeImage code,
        KernelEra era,
        FoundLayout found,
        AltInstrTable? alternatives,
        KernelSymbols? symbols,
        SiteEvidence? evidence,
        NativeTable table,
        [NotNullWhen(true)] out KernelSites? sites,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        sites = null;
        OpsLayout layout = found.Layout;
        if (era.Source == SiteSource.ParaInstructions)
        {
            return KernelSites.TryReadTable(elf, code, era, layout, symbols, evidence, out sites, out error);
        }

        var locator = new SlotWordLocator(code, alternatives!, symbols);
        return locator.TryFind(
            layout, found.LockTable, words => table.TryRead(layout, words, out _, out _), out VirtualAddress[]? words, out error)
            && KernelSites.TryReadDirectCalls(elf, code, alternatives!, layout, words, out sites, out error);
    }
}
