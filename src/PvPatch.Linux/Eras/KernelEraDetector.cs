using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Eras;

/// <summary>
/// Detects a kernel's era from the image. Version strings are not looked at: stable and vendor kernels carry changes of later ones.
/// </summary>
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

    /// <summary>Detects the era.</summary>
    /// <param name="elf">The image.</param>
    /// <param name="source">Where its sites are.</param>
    /// <param name="layout">Its slots.</param>
    /// <param name="evidence">
    /// Evidence of its sites; <see langword="null"/> where its own type information gave the layout, which is enough.
    /// </param>
    /// <param name="symbols">Its symbols.</param>
    /// <param name="era">The era.</param>
    /// <param name="error">PV6102: none fits, or more than one does.</param>
    public static bool TryDetect(
        ElfImage elf, SiteSource source, OpsLayout layout, SiteEvidence? evidence, KernelSymbols? symbols,
        [NotNullWhen(true)] out KernelEra? era, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        // Where its own type information gave the layout, the kernel is of 5.2 or later, and its slots tell enough.
        var traits = new EraTraits
        {
            Source = source,
            Bitness = elf.Bitness,
            Placement = evidence?.PlacementOf(symbols) ?? SlotPlacement.OneTable,
            Shapes = evidence?.Shapes,
            HasTypes = evidence is null,
            Layout = layout,
            HasSymbol = evidence is null || symbols is null ? null : name => symbols.TryGetAddress(name, out _),
            TestsClobbers = evidence is null || symbols is null ? null : TestsClobbers(elf, symbols),
        };
        IReadOnlyList<KernelEra> left = traits.Match();
        era = left.Count == 1 ? left[0] : null;
        error = era is not null ? null : PatchDiagnostic.Error(
            KernelDiagnosticCodes.EraUnknown,
            left.Count == 0 ? "the kernel is of no era that is known" : "the kernel can be of more than one era") with
        {
            Found = traits.Describe(),
            Expected = left.Count == 0 ? "what one of the eras has" : string.Join(" or ", left),
            Help = left.Count == 0
                ? "Is this an original image? If it is, name the era that is nearest (--era)."
                : "Name the era (--era)" + (symbols is null ? ", or give a System.map of this kernel." : "."),
        };
        return era is not null;
    }

    /// <summary>
    /// Whether the kernel's own patcher compares clobbers: it does so by "what the target destroys and not what the site allows", so there
    /// is a complement in paravirt_patch_call where there is the test.
    /// </summary>
    private static bool? TestsClobbers(ElfImage elf, KernelSymbols symbols)
    {
        const int Longest = 256;
        if (!symbols.TryGetAddress("paravirt_patch_call", out VirtualAddress function)
            || !elf.TryGetSectionAt(function, out ElfSection? section) || !section.IsExecutable)
        {
            return null;
        }

        ulong length = Math.Min(Longest, section.Size - (function.Value - section.Address.Value));
        if (!elf.TryGetBytes(function, (int)length, out Memory<byte> code))
        {
            return null;
        }

        var decoder = Decoder.Create(elf.Bitness, code.ToArray(), function.Value);
        while (decoder.IP - function.Value < length && (decoder.IP == function.Value || symbols.FindAt(decoder.IP).Count == 0))
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.Mnemonic is Mnemonic.Not or Mnemonic.Andn)
            {
                return true;
            }
        }

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
        return $"{AltInstrTable.SectionName} with {table.Count} records, none of them a direct call";
    }
}
