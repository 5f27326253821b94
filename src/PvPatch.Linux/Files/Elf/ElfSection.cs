namespace PvPatch.Linux.Files;

/// <summary>
/// One section of an <see cref="ElfImage"/>: its header, checked against the file. The bytes are had from <see cref="ElfImage.GetBytes"/>.
/// </summary>
internal sealed class ElfSection
{
    internal ElfSection(int index, string name)
    {
        Index = index;
        Name = name;
    }

    /// <summary>The place of the header in the section header table, counted from 0 (which is the unused header).</summary>
    public int Index { get; }

    /// <summary>The name, for example <c>.altinstructions</c>; empty where the file names no sections.</summary>
    public string Name { get; }

    /// <summary>The type.</summary>
    public ElfSectionType Type { get; internal init; }

    /// <summary>The attributes.</summary>
    public ElfSectionAttributes Flags { get; internal init; }

    /// <summary>The address its first byte has when the program runs; 0 in relocatable files.</summary>
    public VirtualAddress Address { get; internal init; }

    /// <summary>The offset of its bytes in the file.</summary>
    public long FileOffset { get; internal init; }

    /// <summary>Its size in bytes, in memory; a section without bytes in the file has a size too.</summary>
    public ulong Size { get; internal init; }

    /// <summary>The size in bytes of one record, where the section is a table that says so, else 0.</summary>
    public ulong EntrySize { get; internal init; }

    /// <summary>The index of another section, by <see cref="Type"/>: a symbol table's strings, for example.</summary>
    public uint Link { get; internal init; }

    /// <summary>Another number, by <see cref="Type"/>: the section that relocations apply to, for example.</summary>
    public uint Info { get; internal init; }

    /// <summary>The alignment of the address in bytes; 0 and 1 both mean none.</summary>
    public ulong Alignment { get; internal init; }

    /// <summary>Whether the section occupies memory when the program runs.</summary>
    public bool IsAllocated => (Flags & ElfSectionAttributes.Alloc) != 0;

    /// <summary>Whether the section holds machine code.</summary>
    public bool IsExecutable => (Flags & ElfSectionAttributes.Execute) != 0;

    /// <summary>Whether the file holds bytes for the section.</summary>
    public bool HasFileContent => Type is not (ElfSectionType.Null or ElfSectionType.NoBits);

    /// <summary>Whether a range of addresses lies inside the section.</summary>
    /// <param name="address">The first address.</param>
    /// <param name="length">The number of bytes, from 0.</param>
    /// <returns>Whether all of it lies inside; a range of 0 bytes may start at the very end.</returns>
    public bool Contains(VirtualAddress address, long length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ulong start = address.Value - Address.Value;
        return address >= Address && start <= Size && (ulong)length <= Size - start;
    }

    /// <summary>The section's name, its address and its size.</summary>
    /// <returns>One line of text.</returns>
    public override string ToString() => $"{Name} at {Address}, {FileRange.Hex(Size)} bytes";
}
