using System.Buffers.Binary;
using Iced.Intel;
using PvPatch.Images;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tables;

/// <summary>The address of the word that a site calls or jumps through, where the site names one.</summary>
internal static class SiteOperand
{
    /// <summary>Reads the address.</summary>
    /// <param name="code">The code.</param>
    /// <param name="record">The site.</param>
    /// <param name="operand">The address.</param>
    /// <param name="isJump">Whether the site jumps.</param>
    /// <returns>Whether there is one: not for calls through a register, nor for a site with two calls.</returns>
    public static bool TryRead(CodeImage code, in ParaInstruction record, out ulong operand, out bool isJump)
    {
        operand = 0;
        isJump = false;
        if (record.Length == 0 || !code.TryGetBytes(record.Address, record.Length, out Span<byte> site))
        {
            return false;
        }

        // The form of nearly every site: call / jmp [rip+disp32], in 32-bit code [disp32].
        if (site.Length >= 6 && site[0] == 0xff && site[1] is 0x15 or 0x25)
        {
            int displacement = BinaryPrimitives.ReadInt32LittleEndian(site[2..]);
            operand = code.Bitness == 64 ? unchecked(record.Address.Value + 6 + (ulong)displacement) : (uint)displacement;
            isJump = site[1] == 0x25;
            return true;
        }

        // call / jmp [abs32], sign-extended (2.6.30 to 5.12).
        if (site.Length >= 7 && site[0] == 0xff && site[1] is 0x14 or 0x24 && site[2] == 0x25)
        {
            operand = unchecked((ulong)BinaryPrimitives.ReadInt32LittleEndian(site[3..]));
            isJump = site[1] == 0x24;
            return true;
        }

        return TryDecode(code.Bitness, site, record.Address.Value, out operand, out isJump);
    }

    private static bool TryDecode(int bitness, ReadOnlySpan<byte> site, ulong address, out ulong operand, out bool isJump)
    {
        operand = 0;
        isJump = false;
        int found = 0;
        var decoder = Decoder.Create(bitness, site.ToArray(), address);
        while (decoder.IP - address < (ulong)site.Length)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                return false;
            }

            bool jump = instruction.FlowControl == FlowControl.IndirectBranch;
            bool isBranch = jump || instruction.FlowControl == FlowControl.IndirectCall;
            if (isBranch && instruction.Op0Kind == OpKind.Memory && (instruction.IsIPRelativeMemoryOperand
                || (instruction.MemoryBase == Register.None && instruction.MemoryIndex == Register.None)))
            {
                operand = instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress : instruction.MemoryDisplacement64;
                isJump = jump;
                found++;
            }
        }

        return found == 1;
    }
}
