using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;

namespace PvPatch.Linux.Modules;

/// <summary>Whether a module is one of a kernel: the same machine, sites kept in the same way, the same release.</summary>
internal static class ModuleMatch
{
    // What the sites of 6.8 and later call until they are patched; no earlier kernel has it.
    private const string BugFunction = "BUG_func";

    /// <summary>Checks machine and era, by what is in both files.</summary>
    public static bool TryCheck(KernelModule module, KernelImage kernel, [NotNullWhen(true)] out ElfSymbolTable? symbols,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        symbols = null;
        if (module.Elf.Bitness != kernel.Elf.Bitness)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.ModuleWrongMachine, "the module is for another machine than the kernel") with
            {
                Found = $"a {module.Elf.Bitness}-bit module",
                Expected = $"a {kernel.Elf.Bitness}-bit module",
            };
            return false;
        }

        if (!module.Elf.TryReadSymbols(out symbols, out error))
        {
            return false;
        }

        if (kernel.Era.Source == SiteSource.DirectCallAlternatives && TryGetTable(module.Elf, KernelEraDetector.SiteTableSection, out _))
        {
            error = OtherEra("the module has a site table", $"a section {KernelEraDetector.SiteTableSection} (2.6.20 to 6.7)");
        }
        else if (kernel.Era.Source == SiteSource.ParaInstructions && Needs(symbols, BugFunction))
        {
            error = OtherEra("the module keeps its sites as alternatives", $"a reference to {BugFunction} (6.8 and later)");
        }

        return error is null;
    }

    /// <summary>A table of a module, where it is there and loaded and not empty.</summary>
    public static bool TryGetTable(ElfImage elf, string name, [NotNullWhen(true)] out ElfSection? section) =>
        elf.TryGetSection(name, out section) && section.IsAllocated && section.HasFileContent && section.Size > 0;

    /// <summary>A missing operation calls the kernel's own function, so the module's must be the same.</summary>
    public static bool TryCheckBugTarget(KernelSites sites, KernelImage kernel, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = sites.BugTarget is null || kernel.BugTarget is null || sites.BugTarget == kernel.BugTarget ? null
            : PatchDiagnostic.Error(KernelDiagnosticCodes.AlternativeUnknown,
                "the direct calls of the module have another replacement than those of the kernel") with
            {
                Found = $"a call to {sites.BugTarget}",
                Expected = $"a call to {kernel.BugTarget}",
            };
        return error is null;
    }

    /// <summary>A warning where module and kernel name different releases.</summary>
    public static IReadOnlyList<PatchDiagnostic> FindWarnings(KernelModule module, KernelImage kernel)
    {
        string? release = KernelBanner.Release(kernel.Elf, kernel.Symbols);
        return release is null || module.Release is null || release == module.Release ? [] :
        [
            PatchDiagnostic.Warning(KernelDiagnosticCodes.ModuleOtherRelease, "the module was built for another release of the kernel") with
            {
                Source = module.Name,
                Found = module.VersionMagic,
                Expected = release,
                Help = "A kernel loads only modules of its own release: take the one from its /lib/modules.",
            },
        ];
    }

    public static PatchDiagnostic OtherEra(string message, string found) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ModuleOtherEra, message) with
        {
            Found = found,
            Expected = "a module built for this kernel",
            Help = "Take the module from the /lib/modules of the kernel's own release.",
        };

    private static bool Needs(ElfSymbolTable symbols, string name)
    {
        ReadOnlySpan<byte> wanted = System.Text.Encoding.UTF8.GetBytes(name);
        for (int i = 1; i < symbols.Count; i++)
        {
            if (symbols[i].SectionIndex == 0 && symbols.GetNameUtf8(i).SequenceEqual(wanted))
            {
                return true;
            }
        }

        return false;
    }
}
