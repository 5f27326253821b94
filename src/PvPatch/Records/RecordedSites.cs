namespace PvPatch.Records;

/// <summary>The record of a static key's site: a nop or a jump.</summary>
public readonly record struct StaticKeyRecord
{
    /// <summary>Run address of the site's first byte.</summary>
    public VirtualAddress Address { get; init; }

    /// <summary>Length of the site in bytes: 2 or 5.</summary>
    public int Length { get; init; }

    /// <summary>Run address that the jump leads to; within its reach.</summary>
    public VirtualAddress Target { get; init; }

    /// <summary>Name of the key; <see langword="null"/> where the record has none.</summary>
    public string? Key { get; init; }

    /// <summary>Run address of the key's object; <see langword="null"/> where the record has none.</summary>
    public VirtualAddress? KeyAddress { get; init; }

    /// <summary>Whether the site jumps while the key is off and falls through while it is on; else the other way about.</summary>
    public bool IsLikely { get; init; }

    /// <summary>Value of the key for which the site was laid down.</summary>
    public bool InitialValue { get; init; }
}

/// <summary>The records of a multiway branch's site: a nop, or a jump to one of several labels.</summary>
public readonly record struct MultiBranchRecord
{
    /// <summary>Run address of the site's first byte.</summary>
    public VirtualAddress Address { get; init; }

    /// <summary>Length of the site in bytes: 2 or 5.</summary>
    public int Length { get; init; }

    /// <summary>
    /// For each way the run address that it leads to, within the site's reach; <see langword="null"/> where it falls through.
    /// </summary>
    public IReadOnlyList<VirtualAddress?> Labels { get; init; }

    /// <summary>Name of the branch; <see langword="null"/> where the records have none.</summary>
    public string? Branch { get; init; }

    /// <summary>Run address of the branch's object; <see langword="null"/> where the records have none.</summary>
    public VirtualAddress? KeyAddress { get; init; }

    /// <summary>The way that the site was laid down for; <see langword="null"/> where for none.</summary>
    public int? InitialWay { get; init; }
}

/// <summary>The record of a static call.</summary>
public readonly record struct StaticCallRecord
{
    /// <summary>Run address of the site's first byte.</summary>
    public VirtualAddress Address { get; init; }

    /// <summary>Length of the site in bytes: 5, or 6 where it has a condition.</summary>
    public int Length { get; init; }

    /// <summary>Whether the site is a tail call: a jump, conditional or not.</summary>
    public bool IsTailCall { get; init; }

    /// <summary>
    /// Condition of a conditional tail call: the low four bits of the opcode (4 for <c>je</c>); <see langword="null"/> else.
    /// </summary>
    public int? Condition { get; init; }

    /// <summary>Name of the call's key; <see langword="null"/> where the record has none.</summary>
    public string? Key { get; init; }

    /// <summary>Run address of the key's object; <see langword="null"/> where the record has none.</summary>
    public VirtualAddress? KeyAddress { get; init; }

    /// <summary>Run address of the initial function; <see langword="null"/> where the site was laid down without one.</summary>
    public VirtualAddress? Target { get; init; }
}

/// <summary>The record of one piece of code that may stand in a region: a variant, or the replacement for a processor feature.</summary>
public readonly record struct ReplacementRecord
{
    /// <summary>Run address of the region's first byte.</summary>
    public VirtualAddress Address { get; init; }

    /// <summary>Length of the region in bytes: at least that of the longest piece of code for it.</summary>
    public int Length { get; init; }

    /// <summary>Run address of the piece of code; that of the region for the variant that was laid down there.</summary>
    public VirtualAddress Code { get; init; }

    /// <summary>Length of the piece of code in bytes, without nops behind it.</summary>
    public int CodeLength { get; init; }

    /// <summary>Name of the variant's backend; <see langword="null"/> for the replacement for a feature.</summary>
    public string? Backend { get; init; }

    /// <summary>Number of the processor feature; 0 for a variant.</summary>
    public int Feature { get; init; }

    /// <summary>Whether the replacement is for processors without the feature.</summary>
    public bool IsForAbsence { get; init; }
}
