using System.Buffers.Binary;
using System.Runtime.Intrinsics;
using Iced.Intel;

namespace PvPatch.Planning;

/// <summary>What stands at a site before it is patched.</summary>
internal enum SiteForm
{
    /// <summary>Whole instructions, one of them an indirect call.</summary>
    IndirectCall,

    /// <summary>Whole instructions, one of them an indirect jump.</summary>
    IndirectJump,

    /// <summary>Whole instructions, none of them an indirect call or jump.</summary>
    OtherCode,

    /// <summary>Bytes that are not whole instructions, or do not end where the site ends.</summary>
    NotCode,
}

/// <summary>
/// Recognises what stands at a site. Nearly all sites are one indirect call and perhaps nops, seen by a few byte tests; for the
/// rest (pushes around the call, prefixes) Iced decodes. Nop tails it has decoded once are remembered by length.
/// </summary>
internal sealed class SiteFormReader
{
    private readonly int _bitness;
    private readonly Vector128<byte>[] _knownTails = new Vector128<byte>[17];
    private readonly bool[] _hasTail = new bool[17];

    public SiteFormReader(int bitness) => _bitness = bitness;

    /// <summary>Reads a site.</summary>
    /// <param name="bytes">The site's bytes.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="slotAddress">The address the call or jump reads its target from; 0 where it is not in the instruction (register relative).</param>
    public SiteForm Read(ReadOnlySpan<byte> bytes, ulong address, out ulong slotAddress)
    {
        int length = IndirectLength(bytes, address, out slotAddress, out bool jump);
        if (length != 0 && length <= bytes.Length && IsKnownTail(bytes[length..]))
        {
            return jump ? SiteForm.IndirectJump : SiteForm.IndirectCall;
        }

        return Decode(bytes, address, out slotAddress);
    }

    /// <summary>Length of the indirect call (ff /2) or jump (ff /4) through memory that the bytes begin with; 0 where they do not.</summary>
    private int IndirectLength(ReadOnlySpan<byte> bytes, ulong address, out ulong slotAddress, out bool jump)
    {
        slotAddress = 0;
        jump = false;
        if (bytes.Length < 2 || bytes[0] != 0xff || (bytes[1] >> 3 & 7) is not (2 or 4))
        {
            return 0;
        }

        jump = (bytes[1] >> 3 & 7) == 4;
        int mod = bytes[1] >> 6;
        int rm = bytes[1] & 7;
        if (mod == 0 && rm == 5 && bytes.Length >= 6)
        {
            // ff 15 / ff 25: RIP-relative in 64-bit code, absolute in 32-bit code.
            int displacement = BinaryPrimitives.ReadInt32LittleEndian(bytes[2..]);
            slotAddress = _bitness == 64 ? unchecked(address + 6 + (ulong)displacement) : (uint)displacement;
            return 6;
        }

        if (mod == 0 && rm == 4 && bytes.Length >= 7 && bytes[2] == 0x25)
        {
            // ff 14 25: absolute through a SIB byte without base and index; sign-extended in 64-bit code.
            int displacement = BinaryPrimitives.ReadInt32LittleEndian(bytes[3..]);
            slotAddress = _bitness == 64 ? unchecked((ulong)displacement) : (uint)displacement;
            return 7;
        }

        int sib = rm == 4 ? 1 : 0;
        return mod switch
        {
            1 => 3 + sib, // disp8 off a register
            2 => 6 + sib, // disp32 off a register
            _ => 0, // a register, or a form rare enough for the decoder
        };
    }

    private bool IsKnownTail(ReadOnlySpan<byte> tail)
    {
        if (tail.IsEmpty)
        {
            return true;
        }

        if (tail.Length > 16)
        {
            return false;
        }

        Vector128<byte> padded = default;
        tail.CopyTo(Plans.PlanEntry.AsBytes(ref padded));
        if (_hasTail[tail.Length] && _knownTails[tail.Length] == padded)
        {
            return true;
        }

        if (!IsNops(tail))
        {
            return false;
        }

        _knownTails[tail.Length] = padded;
        _hasTail[tail.Length] = true;
        return true;
    }

    private bool IsNops(ReadOnlySpan<byte> tail)
    {
        var decoder = Decoder.Create(_bitness, tail.ToArray());
        while (decoder.IP < (ulong)tail.Length)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid || instruction.Mnemonic is not (Mnemonic.Nop or Mnemonic.Int3))
            {
                return false;
            }
        }

        return decoder.IP == (ulong)tail.Length;
    }

    private SiteForm Decode(ReadOnlySpan<byte> bytes, ulong address, out ulong slotAddress)
    {
        slotAddress = 0;
        SiteForm form = SiteForm.OtherCode;
        var decoder = Decoder.Create(_bitness, bytes.ToArray(), address);
        ulong end = unchecked(address + (ulong)bytes.Length);
        for (ulong ip = address; ip != end; ip = decoder.IP)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                return SiteForm.NotCode;
            }

            bool call = instruction.FlowControl == FlowControl.IndirectCall;
            if ((call || instruction.FlowControl == FlowControl.IndirectBranch) && instruction.Op0Kind == OpKind.Memory)
            {
                form = call ? SiteForm.IndirectCall : SiteForm.IndirectJump;
                slotAddress = instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress
                    : instruction.MemoryBase == Register.None && instruction.MemoryIndex == Register.None ? instruction.MemoryDisplacement64
                    : 0;
            }
        }

        return form;
    }
}
