namespace PvPatch.Linux.Modules;

/// <summary>The field that a relocation type writes: its width, and whether it is absolute or relative.</summary>
/// <param name="Width">Bytes written: 4 or 8; 1 where the type is not known.</param>
/// <param name="IsRelative">Whether it is the distance from the place.</param>
/// <param name="IsSigned">Whether a field of 4 bytes is sign-extended when it is used.</param>
/// <param name="IsKnown">Whether modules have this type.</param>
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
        2 or 4 => new(4, true, true, true), // R_X86_64_PC32, R_X86_64_PLT32: there is no PLT in the kernel, so both are the same
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
