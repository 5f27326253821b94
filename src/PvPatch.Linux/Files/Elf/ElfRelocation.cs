using System.Buffers.Binary;

namespace PvPatch.Linux.Files;

/// <summary>An entry of a table of relocations: Elf64_Rela, or Elf32_Rel, whose addend stands at the place itself.</summary>
/// <param name="Place">
/// What it writes: an offset in its section in relocatable files, a run address in linked ones.
/// </param>
/// <param name="Type">The type, by the psABI of the machine.</param>
/// <param name="Symbol">The index of the symbol it refers to.</param>
/// <param name="Addend">The addend; 0 in a 32-bit file.</param>
internal readonly record struct ElfRelocation(ulong Place, uint Type, uint Symbol, long Addend)
{
    /// <summary>Size in bytes of an entry.</summary>
    public static int Size(bool is64) => is64 ? 24 : 8;

    /// <summary>Reads an entry.</summary>
    public static ElfRelocation Read(ReadOnlySpan<byte> entry, bool is64) => is64
        ? new(BinaryPrimitives.ReadUInt64LittleEndian(entry), BinaryPrimitives.ReadUInt32LittleEndian(entry[8..]),
            BinaryPrimitives.ReadUInt32LittleEndian(entry[12..]), BinaryPrimitives.ReadInt64LittleEndian(entry[16..]))
        : new(BinaryPrimitives.ReadUInt32LittleEndian(entry), entry[4], BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]) >> 8, 0);
}

/// <summary>The field that a relocation type writes: its width, and whether it is absolute or relative.</summary>
/// <param name="Width">Bytes written: 4 or 8; 1 where the type is not known.</param>
/// <param name="IsRelative">Whether it is the distance from the place.</param>
/// <param name="IsSigned">Whether a field of 4 bytes is sign-extended when it is used.</param>
/// <param name="IsKnown">Whether the type is done here.</param>
internal readonly record struct RelocationField(int Width, bool IsRelative, bool IsSigned, bool IsKnown)
{
    /// <summary>R_X86_64_NONE and R_386_NONE.</summary>
    public const uint None = 0;

    // One byte is the least that a type may write, so a place at the very end of its section is in order.
    private static readonly RelocationField s_unknown = new(1, false, false, false);

    /// <summary>The field of a type.</summary>
    public static RelocationField Of(uint type, bool is64) => is64 ? Of64(type) : Of32(type);

    private static RelocationField Of64(uint type) => type switch
    {
        1 => new(8, false, false, true), // R_X86_64_64
        2 or 4 => new(4, true, true, true), // R_X86_64_PC32, R_X86_64_PLT32: without a PLT both are the same
        10 => new(4, false, false, true), // R_X86_64_32
        11 => new(4, false, true, true), // R_X86_64_32S
        24 => new(8, true, false, true), // R_X86_64_PC64
        _ => s_unknown,
    };

    private static RelocationField Of32(uint type) => type switch
    {
        1 => new(4, false, false, true), // R_386_32
        2 or 4 => new(4, true, false, true), // R_386_PC32, R_386_PLT32
        _ => s_unknown,
    };
}
