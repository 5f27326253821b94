using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Iced.Intel;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// The bytes of a site that is an indirect call or jump, but for the displacement of the call's operand: sites that differ in
/// nothing else are of the same form, since a displacement decides neither the length of an instruction nor its kind.
/// </summary>
internal struct KnownForm
{
    public Vector128<byte> Mask;
    public Vector128<byte> Bytes;
    private Operand _operand;
    private byte _displacement;
    private byte _instructionEnd;

    private enum Operand : byte
    {
        /// <summary>Off a register: the address is not in the instruction.</summary>
        Register,

        /// <summary>A signed 32-bit distance from the instruction's end.</summary>
        Relative,

        /// <summary>A 32-bit address, sign-extended in 64-bit code.</summary>
        Absolute,
    }

    /// <summary>Makes the form of a site.</summary>
    /// <param name="site">The site's bytes.</param>
    /// <param name="call">Its last indirect call or jump.</param>
    /// <param name="offsets">Where that instruction's displacement is.</param>
    /// <param name="start">Where the instruction begins in the site.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="form">The form.</param>
    /// <returns>Whether there is one: not for long sites and operands rarer than is worth a rule.</returns>
    public static bool TryMake(ReadOnlySpan<byte> site, in Instruction call, ConstantOffsets offsets, int start, int bitness, out KnownForm form)
    {
        form = default;
        if (site.Length > PlanEntry.MaxInPlace)
        {
            return false;
        }

        if (call.IsIPRelativeMemoryOperand)
        {
            form._operand = Operand.Relative;
        }
        else if (call.MemoryBase == Register.None && call.MemoryIndex == Register.None)
        {
            form._operand = Operand.Absolute;
        }

        // The other address size (prefix 67) counts its addresses in another way; such a call is decoded each time.
        bool usualSize = form._operand switch
        {
            Operand.Relative => call.MemoryBase == Register.RIP,
            Operand.Absolute => call.MemoryDisplSize == bitness / 8,
            _ => true,
        };
        if (!usualSize || (form._operand != Operand.Register && offsets.DisplacementSize != 4))
        {
            return false;
        }

        form._displacement = (byte)(start + offsets.DisplacementOffset);
        form._instructionEnd = (byte)(start + call.Length);
        form.Mask = PlanEntry.Masks[site.Length];
        PlanEntry.AsBytes(ref form.Mask).Slice(form._displacement, offsets.DisplacementSize).Clear();
        form.Bytes = PlanEntry.Pad(site) & form.Mask;
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly bool Matches(Vector128<byte> site) => (site & Mask) == Bytes;

    /// <summary>The address the call or jump reads its target from; 0 where it is not in the instruction.</summary>
    public readonly ulong SlotAddress(Vector128<byte> site, ulong address, int bitness)
    {
        if (_operand == Operand.Register)
        {
            return 0;
        }

        int displacement = BinaryPrimitives.ReadInt32LittleEndian(PlanEntry.AsBytes(ref site)[_displacement..]);
        return _operand == Operand.Relative ? unchecked(address + _instructionEnd + (ulong)displacement)
            : bitness == 64 ? unchecked((ulong)displacement)
            : (uint)displacement;
    }
}
