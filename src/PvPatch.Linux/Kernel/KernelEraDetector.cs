using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Alternatives;
using PvPatch.Linux.Elf;
using PvPatch.Ops;

namespace PvPatch.Linux.Kernel;

/// <summary>Tells a kernel's era by what is in the image. Version strings are not asked: stable and vendor kernels carry changes of later ones.</summary>
internal static class KernelEraDetector
{
    public const string SiteTableSection = ".parainstructions";

    public static bool TryFindSiteTable(ElfImage elf, [NotNullWhen(true)] out ElfSection? table, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (elf.TryGetSection(SiteTableSection, out table) && table.Size > 0 && table.HasFileContent)
        {
            return true;
        }

        table = null;
        error = PatchDiagnostic.Error(KernelDiagnosticCodes.NoSiteTable, "the kernel has no table of paravirt sites") with
        {
            Found = DescribeInstead(elf, out bool direct),
            Expected = $"a section {SiteTableSection}, as 2.6.20 to 6.7 have",
            Help = direct
                ? "Kernels from 6.8 on keep their paravirt sites in .altinstructions, which this version of PvPatch does not plan yet."
                : "Is this a kernel image, and built with CONFIG_PARAVIRT?",
        };
        return false;
    }

    public static bool TryDetect(ElfImage elf, OpsLayout layout, [NotNullWhen(true)] out KernelEra? era, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        // From 5.13 on there is no patch hook any more, and with it went the slots of init and time.
        bool hasHook = layout.TryGetSlot("init.patch", out _);
        if (elf.Bitness == 64 && !hasHook)
        {
            era = KernelEra.Linux61;
            error = null;
            return true;
        }

        era = null;
        error = PatchDiagnostic.Error(KernelDiagnosticCodes.EraUnknown, "this version of PvPatch has no data for kernels of this era") with
        {
            Found = $"a {elf.Bitness}-bit kernel {(hasHook ? "with a patch function of each backend (before 5.13)" : "without patch functions")}",
            Expected = "a 64-bit kernel of 5.13 to 6.7",
        };
        return false;
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
        return $"{AltInstrTable.SectionName} with {table.Count} records, {calls} of them direct calls of paravirt slots";
    }
}
