namespace PvPatch.Linux.Objects;

/// <summary>Addresses for an object file, which has none of its own. A linked file needs no options.</summary>
public sealed record ObjectOptions
{
    /// <summary>Run address of the first loaded section; the others follow in the order of the file. Default: 0x400000.</summary>
    public VirtualAddress Address { get; init; } = new(0x400000);

    /// <summary>Run addresses of symbols that the object file refers to and does not define.</summary>
    public IReadOnlyDictionary<string, VirtualAddress> Symbols { get; init; } = new Dictionary<string, VirtualAddress>();
}
