using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Alternatives;
using PvPatch.Linux.Elf;
using PvPatch.Ops;

namespace PvPatch.Linux.Kernel;

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

    public static KernelEra Detect(SiteSource source, OpsLayout layout)
    {
        if (source == SiteSource.DirectCallAlternatives)
        {
            return KernelEra.Linux612;
        }

        // From 5.13 on there is no patch hook any more, and with it went the slots of init and time.
        return layout.TryGetSlot("init.patch", out _) ? KernelEra.Linux510 : KernelEra.Linux61;
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
