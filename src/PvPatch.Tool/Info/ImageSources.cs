using PvPatch.Linux;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;

namespace PvPatch.Tool.Info;

/// <summary>Sources of the facts that <c>info</c> reports.</summary>
internal static class ImageSources
{
    /// <summary>The sections that decide what can be done with a kernel.</summary>
    public static readonly string[] SectionsOfInterest =
        [".text", ".parainstructions", ".altinstructions", TypeInformation, "__jump_table", ".static_call_sites", ".symtab"];

    private const string TypeInformation = ".BTF";

    /// <summary>Whether kernels have a table without a section of its own; that there is no such section says nothing.</summary>
    public static bool IsElsewhere(string section) => section is "__jump_table" or ".static_call_sites";

    /// <summary>The source of the era.</summary>
    public static string OfEra(KernelImage image, KernelOptions options) =>
        options.Era is not null ? "--era"
        : image.Era.Source == SiteSource.DirectCallAlternatives ? "direct calls in .altinstructions"
        : !HasTypeInformation(image) ? "its sites, tables and symbols"
        : image.Layout.HasSlot("init.patch") ? ".parainstructions, and a patch function among the slots"
        : ".parainstructions, and no patch function among the slots";

    /// <summary>The source of the layout.</summary>
    public static string OfLayout(KernelImage image, KernelOptions options) =>
        options.Layout is not null ? "--layout"
        : HasTypeInformation(image) ? "the kernel's type information (.BTF)"
        : "an order that is known, proved by the functions the table holds";

    private static bool HasTypeInformation(KernelImage image) => image.Elf.TryGetSection(TypeInformation, out ElfSection? _);

    /// <summary>The source of the symbols.</summary>
    public static string? OfSymbols(KernelImage image) => image.Symbols?.Source switch
    {
        null => null,
        KernelSymbolSource.SymbolTable => "its symbol table",
        KernelSymbolSource.Kallsyms => "its kallsyms",
        KernelSymbolSource.SystemMap => "a System.map",
        _ => "a copy of /proc/kallsyms",
    };
}
