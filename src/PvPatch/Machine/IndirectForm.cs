using System.Buffers.Binary;

namespace PvPatch.Machine;

/// <summary>The bytes of a site before it is patched: an indirect call or jump that ends exactly where the site ends.</summary>
internal static class IndirectForm
{
    /// <summary>ff 15 or ff 25 and a 32-bit displacement.</summary>
    public const int Length = 6;

    /// <summary>
    /// What does nothing in 64-bit code and may stand before any instruction but a conditional jump: a cs segment override.
    /// </summary>
    public const byte Prefix = 0x2e;

    /// <summary>
    /// Writes <c>2e … ff 15 rel32</c> (call [rip+slot]) or <c>ff 25</c> (jmp). Up to 15 bytes that is one instruction; beyond, nops come
    /// first and the call is the last of several.
    /// </summary>
    /// <param name="destination">As long as the site, 6 bytes or more.</param>
    /// <param name="site">The site's run address.</param>
    /// <param name="slot">The slot's run address, in reach: both lie in one arena.</param>
    /// <param name="jump">A jump in place of the call.</param>
    public static void Write(Span<byte> destination, VirtualAddress site, VirtualAddress slot, bool jump)
    {
        int before = destination.Length - Length;
        if (destination.Length <= SiteBytes.LongestInstruction)
        {
            destination[..before].Fill(Prefix);
        }
        else
        {
            NopStyle.P6.Fill(destination[..before]);
        }

        destination[before] = 0xff;
        destination[before + 1] = (byte)(jump ? 0x25 : 0x15);
        BinaryPrimitives.WriteInt32LittleEndian(destination[(before + 2)..], checked((int)(slot - (site + destination.Length))));
    }
}
