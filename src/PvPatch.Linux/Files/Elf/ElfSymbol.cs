namespace PvPatch.Linux.Files;

/// <summary>One entry of an <see cref="ElfSymbolTable"/>; its name is had from the table.</summary>
internal readonly record struct ElfSymbol
{
    /// <summary>The value: an address in executables, an offset inside its section in relocatable files.</summary>
    public VirtualAddress Value { get; internal init; }

    /// <summary>The size in bytes; 0 where it is not known.</summary>
    public ulong Size { get; internal init; }

    /// <summary>The type.</summary>
    public ElfSymbolType Type { get; internal init; }

    /// <summary>The binding.</summary>
    public ElfSymbolBinding Binding { get; internal init; }

    /// <summary>
    /// The index of the section it belongs to: 0 for an undefined symbol, -1 for a symbol outside all sections (absolute or common).
    /// </summary>
    public int SectionIndex { get; internal init; }

    internal uint NameOffset { get; init; }

    /// <summary>Whether the value is absolute (SHN_ABS), not an offset.</summary>
    internal bool IsAbsolute { get; init; }
}
