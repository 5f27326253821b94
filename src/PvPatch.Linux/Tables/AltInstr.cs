namespace PvPatch.Linux.Tables;

/// <summary>Conditions and form of an alternative. Unknown bits are kept.</summary>
[Flags]
internal enum AltInstrOptions
{
    /// <summary>Applied if the processor has the feature.</summary>
    None = 0,

    /// <summary>Applied if the processor does not have the feature (5.10 and later).</summary>
    Not = 1,

    /// <summary>
    /// The original is an indirect call through a pointer; it becomes a direct call of what the pointer holds (about 6.8 and later).
    /// </summary>
    DirectCall = 2,
}

/// <summary>One record of <c>.altinstructions</c>: instructions, and what to put in their place on processors with a feature.</summary>
internal readonly record struct AltInstr
{
    /// <summary>The address of the original instructions.</summary>
    public VirtualAddress Address { get; internal init; }

    /// <summary>The address of the replacement instructions.</summary>
    public VirtualAddress ReplacementAddress { get; internal init; }

    /// <summary>The length of the original in bytes, the padding behind it included.</summary>
    public byte Length { get; internal init; }

    /// <summary>The length of the replacement in bytes.</summary>
    public byte ReplacementLength { get; internal init; }

    /// <summary>Number of padding bytes at the end of the original; 0 in formats without that field.</summary>
    public byte PaddingLength { get; internal init; }

    /// <summary>The number of the processor feature: word times 32 plus bit. The numbers differ between kernel versions.</summary>
    public ushort Feature { get; internal init; }

    /// <summary>Its conditions and form.</summary>
    public AltInstrOptions Options { get; internal init; }

    /// <summary>Whether it is applied if the feature is absent.</summary>
    public bool IsNot => (Options & AltInstrOptions.Not) != 0;

    /// <summary>Whether it turns an indirect call into a direct one.</summary>
    public bool IsDirectCall => (Options & AltInstrOptions.DirectCall) != 0;
}
