using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>What a site of a static call is in the code around it.</summary>
internal enum StaticCallForm : byte
{
    /// <summary>A call: control comes back behind the site.</summary>
    Call,

    /// <summary>The last thing a function does: a jump to what is called, which returns to the function's caller.</summary>
    TailCall,

    /// <summary>The same under a condition of the flags; else control goes on behind the site.</summary>
    ConditionalTailCall,

    /// <summary>The first instruction of a function: the function itself while nothing is to be called in its place.</summary>
    Entry,
}

/// <summary>
/// The bytes of a site of a static call: a direct call or jump, and one instruction that does the same as a function that does nothing,
/// or gives 0. Pure, for images and running code.
/// </summary>
/// <remarks>
/// <code>
/// form                null                        gives 0                           a function
/// call                0f 1f 44 00 00   nop        2e 2e 2e 31 c0   xor eax,eax      e8 dd dd dd dd      call
/// tail call           c3 cc cc cc cc   ret        e9 to xor eax,eax; ret            e9 dd dd dd dd      jmp
/// conditional         0f 8c to ret                0f 8c to xor eax,eax; ret         0f 8c dd dd dd dd   jcc
/// entry               0f 1f 44 00 00   nop        e9 to xor eax,eax; ret            e9 dd dd dd dd      jmp
/// </code>
/// Call and tail call are what Linux writes (static_call, 5.10 and later), but that its tail call that gives 0 jumps to a function of the
/// kernel. cs prefixes fill up: in 64-bit code they mean nothing before a move (SDM volume 1, 3.4.2.1). What stands behind <c>ret</c> is
/// never run; <c>int3</c> keeps the processor from guessing on.
/// <para>In an image, which nobody runs meanwhile, several instructions may stand there, and no code elsewhere is needed:</para>
/// <code>
/// tail call           as above                    31 c0 c3 cc cc      xor eax,eax; ret
/// conditional         7d 04 c3 cc cc cc           7d 04 31 c0 c3 cc   jge to the site's end, before what returns
/// </code>
/// </remarks>
internal static class StaticCallCode
{
    /// <summary>Length of a call or jump.</summary>
    public const int Length = 5;

    /// <summary>Length of a conditional jump.</summary>
    public const int ConditionalLength = 6;

    /// <summary>The target of a call of nothing.</summary>
    public const long Null = 0;

    /// <summary>The target of a call that only gives 0. No code is at the last address.</summary>
    public const long Zero = -1;

    /// <summary>The bytes.</summary>
    /// <param name="form">What the site is.</param>
    /// <param name="condition">The condition, of a conditional tail call.</param>
    /// <param name="site">Run address of the site.</param>
    /// <param name="target">What is called: <see cref="Null"/>, <see cref="Zero"/> or an address.</param>
    /// <param name="entry">
    /// Where a branch leads that the target needs: to the target or what stands before it, to <c>ret</c>, to <c>xor eax,eax; ret</c>.
    /// </param>
    /// <param name="action">What the bytes do.</param>
    /// <param name="bytes">The bytes.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <returns>Whether <paramref name="entry"/> is in reach, where it is needed.</returns>
    public static bool TryEncode(StaticCallForm form, ConditionCode condition, VirtualAddress site, long target, VirtualAddress entry,
        out PatchAction action, out SiteBytes bytes, int bitness = 64)
    {
        (action, bytes) = (form, target) switch
        {
            (StaticCallForm.Call or StaticCallForm.Entry, Null) => (PatchAction.Nop, BranchCode.Nop(Length, bitness)),
            (StaticCallForm.Call, Zero) => (PatchAction.Inline, SiteBytes.From([0x2e, 0x2e, 0x2e, 0x31, 0xc0])),
            (StaticCallForm.TailCall, Null) => (PatchAction.Inline, SiteBytes.From([0xc3, 0xcc, 0xcc, 0xcc, 0xcc])),
            (StaticCallForm.Call, _) => (PatchAction.Call, SiteBytes.From([0xe8, 0, 0, 0, 0])),
            (StaticCallForm.ConditionalTailCall, _) =>
                (PatchAction.Jump, SiteBytes.From([0x0f, (byte)(0x80 | NumberOf(condition)), 0, 0, 0, 0])),
            _ => (PatchAction.Jump, SiteBytes.From([0xe9, 0, 0, 0, 0])),
        };
        if (action is PatchAction.Nop or PatchAction.Inline)
        {
            return true;
        }

        int length = form == StaticCallForm.ConditionalTailCall ? ConditionalLength : Length;
        bool inReach = Displacement.TryGet(site + length, entry, bitness, out int displacement);
        bytes = bytes.With(length - sizeof(int), displacement);
        return inReach;
    }

    /// <summary>
    /// The bytes of a site that does nothing or gives 0, in several instructions: for an image, which nobody runs meanwhile.
    /// </summary>
    /// <param name="form">What the site is.</param>
    /// <param name="condition">The condition, of a conditional tail call.</param>
    /// <param name="target">What is called.</param>
    /// <param name="bytes">The bytes.</param>
    /// <returns>Whether it takes several; else <see cref="TryEncode"/> has them.</returns>
    public static bool TryEncodeInImage(StaticCallForm form, ConditionCode condition, long target, out SiteBytes bytes)
    {
        bytes = (form, target) switch
        {
            (StaticCallForm.TailCall, Zero) => SiteBytes.From([0x31, 0xc0, 0xc3, 0xcc, 0xcc]),
            (StaticCallForm.ConditionalTailCall, Null) => SiteBytes.From([Unless(condition), 4, 0xc3, 0xcc, 0xcc, 0xcc]),
            (StaticCallForm.ConditionalTailCall, Zero) => SiteBytes.From([Unless(condition), 4, 0x31, 0xc0, 0xc3, 0xcc]),
            _ => default,
        };
        return bytes != default;
    }

    /// <summary>jcc rel8 of the opposite condition: their numbers differ in the lowest bit.</summary>
    private static byte Unless(ConditionCode condition) => (byte)(0x70 | (NumberOf(condition) ^ 1));

    /// <summary>The condition with a number: the low half of its opcode byte.</summary>
    public static ConditionCode ConditionOf(int number) =>
        Array.Find(Enum.GetValues<ConditionCode>(), c => c != ConditionCode.None && NumberOf(c) == number);

    /// <summary>The low half of the opcode byte (SDM volume 2, appendix B.1.4.7).</summary>
    private static int NumberOf(ConditionCode condition) => condition switch
    {
        ConditionCode.o => 0,
        ConditionCode.no => 1,
        ConditionCode.b => 2,
        ConditionCode.ae => 3,
        ConditionCode.e => 4,
        ConditionCode.ne => 5,
        ConditionCode.be => 6,
        ConditionCode.a => 7,
        ConditionCode.s => 8,
        ConditionCode.ns => 9,
        ConditionCode.p => 10,
        ConditionCode.np => 11,
        ConditionCode.l => 12,
        ConditionCode.ge => 13,
        ConditionCode.le => 14,
        ConditionCode.g => 15,
        _ => throw new ArgumentOutOfRangeException(nameof(condition), condition, "a conditional tail call needs a condition"),
    };
}
