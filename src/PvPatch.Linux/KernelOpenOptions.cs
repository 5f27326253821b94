using PvPatch.Linux.Eras;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux;

/// <summary>What a caller knows about an image better than the image says.</summary>
public sealed record KernelOpenOptions
{
    /// <summary>The era; found out from the image where there is none.</summary>
    public KernelEra? Era { get; init; }

    /// <summary>The order of the ops table; read from the image's type information where there is none.</summary>
    public OpsLayout? Layout { get; init; }

    /// <summary>The symbols; the image's own symbol table or kallsyms where there are none.</summary>
    public KernelSymbols? Symbols { get; init; }
}
