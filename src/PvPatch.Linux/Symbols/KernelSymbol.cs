namespace PvPatch.Linux.Symbols;

/// <summary>One symbol of a kernel.</summary>
/// <param name="Address">Its address: the link address, or the run-time one where the listing came from a running kernel.</param>
/// <param name="Type">
/// Its kind as a letter, as <c>nm</c> and <c>/proc/kallsyms</c> have it: <c>T</c> code, <c>D</c> <c>B</c> <c>R</c> data,
/// <c>W</c> <c>V</c> weak, <c>A</c> absolute; small where only its own source file sees it.
/// </param>
/// <param name="Name">Its name.</param>
public readonly record struct KernelSymbol(VirtualAddress Address, char Type, string Name)
{
    /// <summary>Whether it is code.</summary>
    public bool IsFunction => Type is 'T' or 't' or 'W' or 'w';

    /// <summary>Whether other source files see it too.</summary>
    public bool IsGlobal => Type is >= 'A' and <= 'Z';

    /// <summary>The symbol as in a listing: address, type, name.</summary>
    /// <returns>One line of text.</returns>
    public override string ToString() => $"{Address} {Type} {Name}";
}
