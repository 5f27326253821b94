using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>
/// Sets of parts of registers in 64 bits: three parts of each general register, each arithmetic flag, the vector state as one. Whole
/// registers would not do: <c>mov al,1; out dx,al</c> leaves the rest of rax unwritten, and nobody reads it.
/// </summary>
/// <remarks>
/// Bits 3n, 3n+1, 3n+2: bits 0–7, 8–15 and 16–63 of the register with encoding number n. Bits 48–55: flags. Bit 56: vector state.
/// </remarks>
internal static class RegisterParts
{
    public const ulong All = (1UL << 57) - 1;
    public const ulong Flags = 0xffUL << 48;
    public const ulong Direction = 1UL << 54;
    public const ulong Vector = 1UL << 56;

    private static readonly RflagsBits[] s_flags =
        [RflagsBits.OF, RflagsBits.SF, RflagsBits.ZF, RflagsBits.AF, RflagsBits.CF, RflagsBits.PF, RflagsBits.DF, RflagsBits.AC];

    /// <summary>The low byte, of all parts of a register.</summary>
    public static ulong LowByte(int register) => 1UL << (3 * register);

    /// <summary>All parts of a general register.</summary>
    public static ulong Whole(int register) => 7UL << (3 * register);

    /// <summary>The parts a register operand names; nothing for other registers than general and vector ones.</summary>
    public static ulong Of(Register register)
    {
        if (register.IsGPR())
        {
            int number = register.GetFullRegister().GetNumber();
            ulong parts = register switch
            {
                Register.AH or Register.CH or Register.DH or Register.BH => 2,
                _ => register.GetSize() switch { 1 => 1UL, 2 => 3UL, _ => 7UL },
            };
            return parts << (3 * number);
        }

        return register.IsVectorRegister() || register.IsST() || register.IsMM() || register.IsK() || register.IsTMM() ? Vector : 0;
    }

    /// <summary>The parts that flags of an instruction are; the interrupt flag is none.</summary>
    public static ulong Of(RflagsBits flags)
    {
        ulong parts = (flags & (RflagsBits.C0 | RflagsBits.C1 | RflagsBits.C2 | RflagsBits.C3)) != 0 ? Vector : 0;
        for (int i = 0; i < s_flags.Length; i++)
        {
            parts |= (flags & s_flags[i]) != 0 ? 1UL << (48 + i) : 0;
        }

        return parts;
    }

    /// <summary>All parts of some registers.</summary>
    public static ulong Of(RegisterSet registers)
    {
        ulong parts = 0;
        for (int number = 0; number < 16; number++)
        {
            parts |= registers.Contains(RegisterSet.General(number)) ? Whole(number) : 0;
        }

        return parts | (registers.Contains(RegisterSet.Flags) ? Flags : 0) | (registers.Contains(RegisterSet.Vector) ? Vector : 0);
    }

    /// <summary>The registers of which some part is in a set.</summary>
    public static RegisterSet ToRegisters(ulong parts)
    {
        uint bits = ((parts & Flags) != 0 ? RegisterSet.Flags.Bits : 0) | ((parts & Vector) != 0 ? RegisterSet.Vector.Bits : 0);
        for (int number = 0; number < 16; number++)
        {
            bits |= (parts & Whole(number)) != 0 ? 1u << number : 0;
        }

        return RegisterSet.FromBits(bits);
    }
}
