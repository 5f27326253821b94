using System.Buffers.Binary;
using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// Makes one instruction as long as a site, by prefixes that change nothing: the indirect call a site is emitted with, what replaces it.
/// </summary>
internal static class PrefixPadding
{
    /// <summary>Bytes of an indirect call or jump without padding: ff 15 or ff 25 and a 32-bit displacement.</summary>
    public const int IndirectLength = 6;

    /// <summary>
    /// What does nothing in 64-bit code and may stand before any instruction but a conditional jump: a cs segment override.
    /// </summary>
    public const byte Cs = 0x2e;

    private const byte Fs = 0x64;
    private const byte Gs = 0x65;

    /// <summary>
    /// Writes <c>2e … ff 15 rel32</c> (call [rip+slot]) or <c>ff 25</c> (jmp), which end exactly where the site ends. Up to 15 bytes that
    /// is one instruction; beyond, nops come first and the call is the last of several.
    /// </summary>
    /// <param name="destination">As long as the site, 6 bytes or more.</param>
    /// <param name="site">The site's run address.</param>
    /// <param name="slot">The slot's run address, in reach: both lie in one arena.</param>
    /// <param name="jump">A jump in place of the call.</param>
    public static void WriteIndirect(Span<byte> destination, VirtualAddress site, VirtualAddress slot, bool jump)
    {
        int before = destination.Length - IndirectLength;
        if (destination.Length <= SiteBytes.LongestInstruction)
        {
            destination[..before].Fill(Cs);
        }
        else
        {
            NopStyle.P6.Fill(destination[..before]);
        }

        destination[before] = 0xff;
        destination[before + 1] = (byte)(jump ? 0x25 : 0x15);
        BinaryPrimitives.WriteInt32LittleEndian(destination[(before + 2)..], checked((int)(slot - (site + destination.Length))));
    }

    /// <summary>Writes an instruction so that it fills a span and ends where the span ends.</summary>
    /// <param name="instruction">Bytes of an instruction.</param>
    /// <param name="destination">At least as long.</param>
    /// <returns>Whether it is one instruction that may stand alone in a live site, padded.</returns>
    public static bool TryPad(ReadOnlySpan<byte> instruction, Span<byte> destination)
    {
        int before = destination.Length - instruction.Length;
        if (before < 0 || destination.Length > SiteBytes.LongestInstruction || !TryDecode(instruction, out Instruction plain)
            || !MayStandAlone(plain))
        {
            return false;
        }

        // cs is ignored in 64-bit mode, where only fs and gs override anything (SDM volume 1, 3.4.2.1); an instruction that has one of
        // these gets it again, so that there is no question which of two counts.
        destination[..before].Fill(plain.SegmentPrefix switch { Register.FS => Fs, Register.GS => Gs, _ => Cs });
        instruction.CopyTo(destination[before..]);
        return TryDecode(destination, out Instruction padded) && IsSame(plain, padded);
    }

    /// <summary>One instruction that does nothing, 1 to 15 bytes.</summary>
    public static void WriteNop(Span<byte> destination)
    {
        int length = destination.Length;
        if (length <= NopStyle.P6.Longest)
        {
            NopStyle.P6.Fill(destination);
            return;
        }

        // 66 0f 1f 84 00 00000000: nop word [rax+rax+0]; cs prefixes before it, which decoders take better than more of 66.
        destination[..(length - 9)].Fill(Cs);
        destination[length - 9] = 0x66;
        NopStyle.P6.Fill(destination[(length - 8)..]);
    }

    /// <summary>
    /// Whether a thread can only ever be before or behind the instruction. Not so where an interrupt leaves it half done with the
    /// instruction pointer at its start (repeated string instructions, gathers, tile loads), where the kernel winds the pointer back by the
    /// unpadded length (system calls), or where a prefix means something (conditional branches take cs as a hint).
    /// </summary>
    private static bool MayStandAlone(in Instruction instruction) =>
        instruction.FlowControl is not (
            FlowControl.ConditionalBranch or FlowControl.Interrupt or FlowControl.XbeginXabortXend or FlowControl.Exception)
        && instruction.Mnemonic is not (Mnemonic.Syscall or Mnemonic.Sysenter)
        && !(instruction.IsStringInstruction && (instruction.HasRepPrefix || instruction.HasRepnePrefix))
        && !instruction.IsVsib
        && !UsesTiles(instruction);

    private static bool UsesTiles(in Instruction instruction)
    {
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) == OpKind.Register && instruction.GetOpRegister(i).IsTMM())
            {
                return true;
            }
        }

        return false;
    }

    private static bool TryDecode(ReadOnlySpan<byte> bytes, out Instruction instruction)
    {
        var decoder = Decoder.Create(64, bytes.ToArray());
        decoder.Decode(out instruction);
        return !instruction.IsInvalid && instruction.Length == bytes.Length;
    }

    private static bool IsSame(in Instruction plain, in Instruction padded)
    {
        // The instruction pointer moves with the length; nothing else may.
        Instruction moved = padded;
        moved.IP = plain.IP;
        moved.Length = plain.Length;
        moved.SegmentPrefix = plain.SegmentPrefix;
        if (plain.IsIPRelativeMemoryOperand)
        {
            moved.MemoryDisplacement64 = plain.MemoryDisplacement64;
        }

        if (BodyBuilder.IsNearBranch(plain))
        {
            moved.NearBranch64 = plain.NearBranch64;
        }

        return moved == plain;
    }
}
