namespace PvPatch.Paravirt;

/// <summary>How VMware's ROM wants a VMI call to be made. The values are the ROM's.</summary>
public enum VmiRelocationKind : byte
{
    /// <summary>Not by the ROM: sites stay as they are.</summary>
    None = 0,

    /// <summary>By a call of the ROM.</summary>
    CallRel = 1,

    /// <summary>By a jump to the ROM.</summary>
    JumpRel = 2,

    /// <summary>Not at all: nothing needs to be done.</summary>
    Nop = 3,
}

/// <summary>The calls of the VMI ROM whose sites a guest patches, by the ROM's numbers.</summary>
public enum VmiCall
{
    /// <summary>Allows interrupts.</summary>
    EnableInterrupts = 29,

    /// <summary>Forbids interrupts.</summary>
    DisableInterrupts = 30,

    /// <summary>Reads the flags.</summary>
    GetInterruptMask = 31,

    /// <summary>Writes the flags.</summary>
    SetInterruptMask = 32,

    /// <summary>Returns from an interrupt.</summary>
    InterruptReturn = 33,

    /// <summary>Allows interrupts and returns from a system call.</summary>
    SysExit = 34,
}

/// <summary>The ROM's answer to "how is this call made": a kind and the address in the ROM.</summary>
/// <param name="Kind">How.</param>
/// <param name="Target">The run address to call or jump to; 32 bits.</param>
public readonly record struct VmiRelocation(VmiRelocationKind Kind, VirtualAddress Target)
{
    /// <summary>Decodes the 64-bit value the ROM's function returns.</summary>
    /// <param name="value">Bits 0-31 the address, bits 32-39 the kind, the rest reserved and not looked at.</param>
    /// <param name="relocation">The answer.</param>
    /// <returns>Whether the kind is one of the four.</returns>
    public static bool TryDecode(ulong value, out VmiRelocation relocation)
    {
        var kind = (VmiRelocationKind)(byte)(value >> 32);
        bool known = kind <= VmiRelocationKind.Nop;
        relocation = known ? new VmiRelocation(kind, (uint)value) : default;
        return known;
    }
}
