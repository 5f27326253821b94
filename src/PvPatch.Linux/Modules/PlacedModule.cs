using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Plans;

namespace PvPatch.Linux.Modules;

/// <summary>
/// A module placed in a kernel: with addresses, relocated, its sites read; the state in which the kernel's loader has it before patching.
/// Plan it with <see cref="KernelPlanner"/>; a plan applied to <see cref="Code"/> changes the module in memory.
/// </summary>
public sealed class PlacedModule
{
    private readonly ModuleRelocations _relocations;

    private PlacedModule(KernelModule module, KernelImage kernel, ElfImage elf, ModuleRelocations relocations)
    {
        Module = module;
        Kernel = kernel;
        Elf = elf;
        Code = elf.ToCode();
        _relocations = relocations;
    }

    /// <summary>The module file.</summary>
    public KernelModule Module { get; }

    /// <summary>The kernel it is placed in.</summary>
    public KernelImage Kernel { get; }

    /// <summary>
    /// A copy of the module's file with the addresses of its sections in their headers and the relocations done, marked as linked. Its
    /// relocation tables are left in it and mean nothing any more.
    /// </summary>
    internal ElfImage Elf { get; }

    /// <summary>The module's code at run addresses; it views the placed file.</summary>
    public CodeImage Code { get; }

    /// <summary>Its sites, by address; none in a module without paravirt calls.</summary>
    public SiteTable Sites { get; private set; } = SiteTable.Empty;

    /// <summary>Its alternatives; <see langword="null"/> where it has none, or the kernel's era lays none over sites.</summary>
    internal AltInstrTable? Alternatives { get; private set; }

    /// <summary>Number of the relocations that were not applied, as no site needs them: per-CPU data, symbols of other modules.</summary>
    public int UnresolvedRelocations => _relocations.Count;

    /// <summary>Warnings about a module that can be planned: PV6147 where it was built for another release.</summary>
    public IReadOnlyList<PatchDiagnostic> Warnings { get; private init; } = [];

    internal static bool TryMake(
        KernelModule module, KernelImage kernel, ModulePlacement placement, [NotNullWhen(true)] out PlacedModule? placed,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        placed = null;
        if (!ModuleMatch.TryCheck(module, kernel, out ElfSymbolTable? table, out error)
            || !ModuleLayout.TryPlace(module.Elf, placement, kernel, out VirtualAddress?[]? addresses, out error)
            || !PlacedElf.TryMake(module.Elf, addresses, out ElfImage? elf, out error))
        {
            return false;
        }

        var symbols = new ModuleSymbols(module.Elf, table, addresses, kernel);
        if (!ElfRelocator.TryApply(module.Elf, elf, symbols, out List<UnresolvedRelocation>? unresolved, out error))
        {
            return false;
        }

        var made = new PlacedModule(module, kernel, elf, new ModuleRelocations(unresolved, symbols))
        {
            Warnings = ModuleMatch.FindWarnings(module, kernel),
        };
        if (!made.TryReadAlternatives(out error) || !made.TryReadSites(out error) || !made.TryCheckReplacements(out error))
        {
            return false;
        }

        placed = made;
        return true;
    }

    private bool TryReadAlternatives([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (Kernel.Era.Alternatives is null || Kernel.Alternatives is null
            || !ModuleMatch.TryGetTable(Elf, AltInstrTable.SectionName, out ElfSection? section))
        {
            return true;
        }

        // In the kernel's own format, which the few records of a module would not tell for sure.
        if (!_relocations.TryCheck(section.Address, (long)section.Size, "the table of alternatives", out error)
            || !AltInstrTable.TryRead(Elf.GetBytes(section).Span, section.Address, Kernel.Alternatives.Format, Elf.Bitness,
                section.FileOffset, out AltInstrTable? table, out error))
        {
            return false;
        }

        for (int i = 0; i < table.Count; i++)
        {
            AltInstr record = table[i];
            if (!AltInstrFormat.IsSane(record) || Code.Find(record.Address, record.Length) is null
                || Code.Find(record.ReplacementAddress, record.ReplacementLength) is null)
            {
                error = ModuleMatch.OtherEra($"alternative {i} makes no sense in the kernel's format ({table.Format})",
                    $"{record.Address}+{record.Length}, replaced by {record.ReplacementAddress}+{record.ReplacementLength}") with
                {
                    FileOffset = section.FileOffset + (i * (long)table.Format.Stride),
                };
                return false;
            }
        }

        Alternatives = table;
        return true;
    }

    private bool TryReadSites([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (Kernel.Era.Source == SiteSource.ParaInstructions)
        {
            return !ModuleMatch.TryGetTable(Elf, KernelEraDetector.SiteTableSection, out ElfSection? section)
                || (_relocations.TryCheck(section.Address, (long)section.Size, "the site table", out error) && TryReadRecords(out error));
        }

        if (Alternatives is null)
        {
            return true;
        }

        foreach (ref readonly AltInstr record in Alternatives.Records)
        {
            if (record.IsDirectCall
                && (!_relocations.TryCheck(record.Address, record.Length, "a site", out error)
                    || !_relocations.TryCheck(record.ReplacementAddress, record.ReplacementLength, "the replacement of a site", out error)))
            {
                return false;
            }
        }

        if (!KernelSites.TryReadDirectCalls(Elf, Code, Alternatives, Kernel.Layout, Kernel.SlotWords, out KernelSites? sites, out error))
        {
            return false;
        }

        Sites = sites.Sites;
        return ModuleMatch.TryCheckBugTarget(sites, Kernel, out error);
    }

    private bool TryReadRecords([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (!KernelSites.TryReadRecords(Elf, Code, Kernel.Era, out SiteTable? sites, out _, out error))
        {
            return false;
        }

        foreach (ref readonly PatchSite site in sites.Sites)
        {
            if (!_relocations.TryCheck(site.Address, site.Budget, "a site", out error))
            {
                return false;
            }
        }

        Sites = sites;
        return true;
    }

    private bool TryCheckReplacements([NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        foreach (ref readonly AltInstr record in Alternatives is null ? default : Alternatives.Records)
        {
            if (Sites.IndexOf(record.Address) >= 0
                && !_relocations.TryCheck(record.ReplacementAddress, record.ReplacementLength, "the replacement of a site", out error))
            {
                return false;
            }
        }

        return true;
    }
}
