using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>How kernels of one time fill what an inline indirect branch leaves free of a retpoline's site.</summary>
internal enum RetpolineFill
{
    /// <summary>Nops (to 5.12).</summary>
    Nops,

    /// <summary>One int3 behind a jump, then nops (5.13 to 6.18).</summary>
    OneTrapThenNops,

    /// <summary>int3 behind a jump; before a call up to three cs prefixes (measured in 7.2).</summary>
    TrapsOrPrefixes,
}

/// <summary>
/// A call or jump to a retpoline as it stands in the file: <c>[2e] e8</c>, <c>[2e] e9</c> or <c>0f 8x</c>, and a distance.
/// </summary>
/// <param name="Address">Where it stands.</param>
/// <param name="Length">Its length: 5 or 6.</param>
/// <param name="Opcode">The last byte of the opcode: e8, e9, or 80 to 8f for a conditional jump.</param>
/// <param name="Register">The register whose thunk it goes to, 0 (rax) to 15 (r15).</param>
internal readonly record struct RetpolineSite(VirtualAddress Address, int Length, byte Opcode, int Register)
{
    /// <summary>The registers that have thunks, and the distance from one thunk to the next.</summary>
    private const int Registers = 16;
    private const int ThunkSize = 32;
    private const int StackPointer = 4;

    /// <summary>Whether it is a conditional jump (<c>jcc rel32</c>), as only clang makes them.</summary>
    public bool IsConditional => Length == 6 && (Opcode & 0xf0) == 0x80;

    /// <summary>Whether it is a call.</summary>
    public bool IsCall => Opcode == BranchBytes.Call;

    /// <summary>Reads a site.</summary>
    /// <param name="address">Where it stands.</param>
    /// <param name="bytes">The bytes from there on, 5 or more.</param>
    /// <param name="thunks">The first thunk: <c>__x86_indirect_thunk_array</c>.</param>
    /// <param name="site">The site.</param>
    /// <returns>Whether there is a branch to one of the thunks; there is none for rsp.</returns>
    public static bool TryRead(VirtualAddress address, ReadOnlySpan<byte> bytes, VirtualAddress thunks, out RetpolineSite site)
    {
        int prefix = bytes[0] switch
        {
            BranchBytes.Call or BranchBytes.Jump => 0,
            0x2e when bytes[1] is BranchBytes.Call or BranchBytes.Jump => 1, // cs, which the compiler puts before r8 to r15
            0x0f when (bytes[1] & 0xf0) == 0x80 => 1,
            _ => -1,
        };
        site = default;
        if (prefix < 0 || bytes.Length < prefix + 5)
        {
            return false;
        }

        ulong offset = unchecked(BranchBytes.Target(address + prefix, bytes[prefix..]).Value - thunks.Value);
        if (offset >= Registers * ThunkSize || offset % ThunkSize != 0 || offset / ThunkSize == StackPointer)
        {
            return false;
        }

        site = new RetpolineSite(address, prefix + 5, bytes[prefix], (int)(offset / ThunkSize));
        return true;
    }

    /// <summary>The thunk of the site's register in another array.</summary>
    public VirtualAddress ThunkIn(VirtualAddress array) => array + (Register * ThunkSize);
}

/// <summary>The bytes that kernels write at the sites of retpolines. Pure.</summary>
/// <remarks>
/// <list type="table">
/// <listheader><term>features</term><description>site</description></listheader>
/// <item><term>RETPOLINE, not LFENCE, not CALL_DEPTH</term><description>as in the file</description></item>
/// <item><term>RETPOLINE, not LFENCE, CALL_DEPTH</term>
/// <description>the same branch to the array of call or of jump thunks</description></item>
/// <item><term>else INDIRECT_THUNK_ITS, and the inline branch would end in the lower half of a line of 64 bytes</term>
/// <description>the same branch to a thunk in a page of ITS thunks</description></item>
/// <item><term>else</term>
/// <description>the branch itself, behind lfence where LFENCE is on, if that fits; else as in the file</description></item>
/// </list>
/// </remarks>
internal static class RetpolineCode
{
    private const byte CsPrefix = 0x2e;
    private const byte RexB = 0x41;
    private const byte Trap = 0xcc;
    private const int MostPrefixes = 3;

    private static ReadOnlySpan<byte> Lfence => [0x0f, 0xae, 0xe8];

    /// <summary>Makes the site's own branch go to another thunk: prefix, condition and length stay.</summary>
    /// <param name="site">The site.</param>
    /// <param name="thunk">The thunk.</param>
    /// <param name="code">The bytes, as many as the site has.</param>
    /// <returns>Whether the thunk is in reach.</returns>
    public static bool TryRetarget(in RetpolineSite site, VirtualAddress thunk, Span<byte> code)
    {
        int prefix = site.Length - 5;
        bool reaches = BranchBytes.TryMake(site.Opcode, site.Address + prefix, thunk, code[prefix..]);
        if (prefix > 0)
        {
            code[0] = site.IsConditional ? (byte)0x0f : CsPrefix;
        }

        return reaches;
    }

    /// <summary>Whether ITS asks for a thunk: the inline branch would end in the lower half of a line of 64 bytes.</summary>
    public static bool IsInLowerHalf(in RetpolineSite site, bool lfence) =>
        ((site.Address.Value + (ulong)(Before(site, lfence) + BranchLength(site) - 1)) & 0x20) == 0;

    /// <summary>Makes the branch itself: <c>[lfence] [41] ff d0+r</c> or <c>ff e0+r</c>, and what fills the site.</summary>
    /// <param name="site">The site.</param>
    /// <param name="lfence">Whether lfence comes first.</param>
    /// <param name="fill">What fills the site.</param>
    /// <param name="nops">The nops.</param>
    /// <param name="code">The bytes, as many as the site has.</param>
    /// <returns>Whether it fits; where not, the kernel leaves the site alone.</returns>
    public static bool TryInline(in RetpolineSite site, bool lfence, RetpolineFill fill, NopStyle nops, Span<byte> code)
    {
        int free = site.Length - Before(site, lfence) - BranchLength(site);
        if (free < 0)
        {
            return false;
        }

        int at = 0;
        if (site.IsConditional)
        {
            // jcc thunk  becomes  jncc over; [lfence]; jmp *reg; over:
            code[at++] = (byte)(0x70 | ((site.Opcode & 0xf) ^ 1));
            code[at++] = (byte)(site.Length - 2);
        }

        if (lfence)
        {
            Lfence.CopyTo(code[at..]);
            at += Lfence.Length;
        }

        bool newFill = fill == RetpolineFill.TrapsOrPrefixes;
        for (; newFill && site.IsCall && free is > 0 and <= MostPrefixes; free--)
        {
            code[at++] = CsPrefix; // a prefix costs less than a nop
        }

        if (site.Register >= 8)
        {
            code[at++] = RexB;
        }

        code[at++] = 0xff;
        code[at++] = (byte)((site.IsCall ? 0xd0 : 0xe0) | (site.Register & 7));
        int traps = site.IsCall ? 0 : newFill ? free : fill == RetpolineFill.OneTrapThenNops ? Math.Min(free, 1) : 0;
        code.Slice(at, traps).Fill(Trap);
        nops.Fill(code[(at + traps)..]);
        return true;
    }

    private static int Before(in RetpolineSite site, bool lfence) => (site.IsConditional ? 2 : 0) + (lfence ? Lfence.Length : 0);

    private static int BranchLength(in RetpolineSite site) => site.Register >= 8 ? 3 : 2;
}
