namespace PvPatch.Linux.Symbols;

/// <summary>Where the symbols of a <see cref="KernelSymbols"/> came from.</summary>
public enum KernelSymbolSource
{
    /// <summary>The symbol table (<c>.symtab</c>) of an ELF file that was not stripped.</summary>
    SymbolTable,

    /// <summary>The kernel's own table for its messages (kallsyms), decoded from the image.</summary>
    Kallsyms,

    /// <summary>A System.map file.</summary>
    SystemMap,

    /// <summary>A listing in the form of <c>/proc/kallsyms</c>.</summary>
    KallsymsListing,
}
