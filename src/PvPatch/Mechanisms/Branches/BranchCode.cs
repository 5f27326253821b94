using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>
/// The bytes of a branch site: nothing where control falls through, one jump where it does not. Pure, for images and running code.
/// </summary>
/// <remarks>
/// <code>
/// leads          2 bytes        5 bytes
/// nowhere        66 90          0f 1f 44 00 00      one nop: xchg ax,ax; nopl 0(rax,rax,1)
/// to a place     eb dd          e9 dd dd dd dd      jmp rel8; jmp rel32, ending where the site ends
/// </code>
/// These are what Linux has at its jump labels (x86 since 5.14 in both lengths, before that in 5 bytes). Which place it is:
/// <code>
/// site                 the setting         leads to
/// unlikely key         off / on            nowhere / the label
/// likely key           off / on            the label / nowhere
/// neutral key          off / on            the first / the second label
/// several keys         on or off each      the label at the number whose bits they are, the first key's lowest
/// multiway branch      i, or nothing       label i, or nowhere
/// </code>
/// A label that was not given is nowhere, so that any way can fall through.
/// </remarks>
internal static class BranchCode
{
    /// <summary>Length of a site that reaches labels within 127 bytes.</summary>
    public const int ShortLength = 2;

    /// <summary>Length of a site that reaches any label of its block.</summary>
    public const int NearLength = 5;

    private static readonly SiteBytes s_shortNop = SiteBytes.From([0x66, 0x90]);
    private static readonly SiteBytes s_nearNop = SiteBytes.From([0x0f, 0x1f, 0x44, 0, 0]);
    private static readonly SiteBytes s_nearNop32 = SiteBytes.From([0x3e, 0x8d, 0x74, 0x26, 0]);

    /// <summary>
    /// One instruction of 2 or 5 bytes that does nothing. In 32-bit code the longer one is <c>ds lea 0(%esi),%esi</c>, which processors
    /// without <c>nopl</c> have too.
    /// </summary>
    public static SiteBytes Nop(int length, int bitness) =>
        length == ShortLength ? s_shortNop : bitness == 64 ? s_nearNop : s_nearNop32;

    private const byte JumpShort = 0xeb;
    private const byte JumpNear = 0xe9;

    /// <summary>The bytes.</summary>
    /// <param name="site">Run address of the site.</param>
    /// <param name="length">2 or 5.</param>
    /// <param name="target">Where it leads; nothing where control falls through.</param>
    /// <param name="bytes">The bytes.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>Whether the target is in reach of such a site.</returns>
    public static bool TryEncode(VirtualAddress site, int length, VirtualAddress? target, out SiteBytes bytes, int bitness = 64)
    {
        if (target is not VirtualAddress place)
        {
            bytes = Nop(length, bitness);
            return true;
        }

        bool inReach = Displacement.TryGet(site + length, place, bitness, out int displacement);
        if (length == ShortLength)
        {
            bytes = new SiteBytes(JumpShort | (ulong)(byte)displacement << 8, 0);
            return inReach && displacement is >= sbyte.MinValue and <= sbyte.MaxValue;
        }

        bytes = new SiteBytes(JumpNear, 0).With(1, displacement);
        return inReach;
    }
}
