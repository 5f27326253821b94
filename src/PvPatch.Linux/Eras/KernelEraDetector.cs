using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Eras;

/// <summary>Tells a kernel's era by what is in the image. Version strings are not asked: stable and vendor kernels carry changes of later ones.</summary>
internal static class KernelEraDetector
{
    public const string SiteTableSection = ".parainstructions";

    /// <summary>Finds where the sites are: a table of their own, or direct calls among the alternatives.</summary>
    public static bool TryFindSource(ElfImage elf, out SiteSource source, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        source = SiteSource.ParaInstructions;
        if (elf.TryGetSection(SiteTableSection, out ElfSection? table) && table.Size > 0 && table.HasFileContent)
        {
            return true;
        }

        source = SiteSource.DirectCallAlternatives;
        string instead = DescribeInstead(elf, out bool direct);
        if (direct)
        {
            return true;
        }

        error = PatchDiagnostic.Error(KernelDiagnosticCodes.NoSiteTable, "the kernel has no paravirt sites") with
        {
            Found = instead,
            Expected = $"a section {SiteTableSection} (2.6.20 to 6.7), or direct calls in {AltInstrTable.SectionName} (6.8 and later)",
            Help = "Is this a kernel image, and built with CONFIG_PARAVIRT?",
        };
        return false;
    }

    /// <summary>Tells the era.</summary>
    /// <param name="elf">The image.</param>
    /// <param name="source">Where its sites are.</param>
    /// <param name="layout">Its slots.</param>
    /// <param name="evidence">What its sites tell; <see langword="null"/> where its own type information gave the layout, which tells enough.</param>
    /// <param name="symbols">Its symbols.</param>
    /// <param name="era">The era.</param>
    /// <param name="error">PV6102: none fits, or more than one does.</param>
    public static bool TryDetect(
        ElfImage elf, SiteSource source, OpsLayout layout, SiteEvidence? evidence, KernelSymbols? symbols, [NotNullWhen(true)] out KernelEra? era, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (source == SiteSource.DirectCallAlternatives)
        {
            era = KernelEra.Linux612;
            return true;
        }

        if (evidence is null)
        {
            // From 5.13 on there is no patch hook any more, and with it went the slots of init and time. Type information came with 5.2.
            era = !layout.TryGetSlot("init.patch", out _) ? KernelEra.Linux61
                : layout.TryGetSlot("cpu.set_iopl_mask", out _) ? KernelEra.Linux420
                : KernelEra.Linux510;
            return true;
        }

        var candidates = new EraCandidates();
        candidates.Placement(EraCandidates.PlacementOf(evidence, symbols));
        candidates.Sites(evidence);
        candidates.Layout(layout);
        candidates.Symbols(elf, symbols);
        IReadOnlyList<KernelEra> left = candidates.Eras;
        era = left.Count == 1 ? left[0] : null;
        error = era is not null ? null : PatchDiagnostic.Error(
            KernelDiagnosticCodes.EraUnknown,
            left.Count == 0 ? "the kernel is of no era that is known" : "the kernel can be of more than one era") with
        {
            Found = candidates.Found,
            Expected = left.Count == 0 ? "what one of the eras has" : string.Join(" or ", left),
            Help = left.Count == 0
                ? "Is this an original image? If it is, name the era that is nearest (--era)."
                : "Name the era (--era)" + (symbols is null ? ", or give a System.map of this kernel." : "."),
        };
        return era is not null;
    }

    private static string DescribeInstead(ElfImage elf, out bool direct)
    {
        direct = false;
        if (!elf.TryGetSection(AltInstrTable.SectionName, out _))
        {
            return $"neither {SiteTableSection} nor {AltInstrTable.SectionName}";
        }

        if (!AltInstrTable.TryRead(elf, out AltInstrTable? table, out PatchDiagnostic? unreadable))
        {
            return $"{AltInstrTable.SectionName}, which cannot be read ({unreadable.Message})";
        }

        int calls = 0;
        foreach (ref readonly AltInstr record in table.Records)
        {
            calls += record.IsDirectCall ? 1 : 0;
        }

        direct = calls > 0;
        return $"{AltInstrTable.SectionName} with {table.Count} records, none of them a direct call";
    }
}
