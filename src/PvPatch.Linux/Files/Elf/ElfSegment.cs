namespace PvPatch.Linux.Files;

/// <summary>One program header of an <see cref="ElfImage"/>, checked against the file.</summary>
internal readonly record struct ElfSegment
{
    /// <summary>The type.</summary>
    public ElfSegmentType Type { get; internal init; }

    /// <summary>The access it allows.</summary>
    public ElfSegmentAccess Flags { get; internal init; }

    /// <summary>The offset of its bytes in the file.</summary>
    public long FileOffset { get; internal init; }

    /// <summary>The number of its bytes in the file.</summary>
    public long FileSize { get; internal init; }

    /// <summary>The address its first byte has when the program runs.</summary>
    public VirtualAddress Address { get; internal init; }

    /// <summary>The physical address it is loaded at; a kernel's loader goes by it.</summary>
    public ulong PhysicalAddress { get; internal init; }

    /// <summary>Its size in memory, in bytes; what goes beyond <see cref="FileSize"/> is zero.</summary>
    public ulong MemorySize { get; internal init; }

    /// <summary>The alignment in bytes; 0 and 1 both mean none.</summary>
    public ulong Alignment { get; internal init; }
}
