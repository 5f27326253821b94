using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// Where an emitted site may come to lie. Kept by prefixes on the instruction before the site where that can take them (not a branch, no prefix of its own but
/// mandatory ones, five more bytes at most), else by nops; neither is part of the site.
/// </summary>
public enum SitePlacement
{
    /// <summary>
    /// Not across the end of a 64-byte line, and not with its first byte at the end of 8: can always be changed live, by three barriers at worst. Costs a third
    /// of a byte a site.
    /// </summary>
    WithinCacheLine,

    /// <summary>Inside an aligned 8 bytes: one store changes it. For budgets up to 8; costs about two bytes a site of six.</summary>
    InsideAligned8,

    /// <summary>Inside an aligned 16 bytes: one store changes it on processors with AVX. For budgets up to 16.</summary>
    InsideAligned16,

    /// <summary>Wherever it falls. One site in sixteen (one in eight without AVX) can then be changed only at quiescence.</summary>
    None,
}

/// <summary>
/// The bytes that bring a site to its place: how many a placement wants, and what they are. Prefixes that do nothing on the instruction before it, where that can take
/// them, else nops. A nop takes a place in the processor's pipeline each time it is run, which shows in small loops; a prefix does not. Assemblers keep branches off
/// boundaries the same way.
/// </summary>
internal static class PlacementRules
{
    // As GNU as by default. Processors of some families decode slowly what has more.
    private const int MostPrefixes = 5;
    private const int LongestInstruction = 15;

    // ds: ignored in 64-bit mode by everything that does not branch (AMD's manual, volume 3, 1.2.4; Intel's, volume 1, 3.4.2.1).
    private const byte Prefix = 0x3e;

    /// <summary>Bytes to put before a site.</summary>
    /// <param name="site">The site.</param>
    /// <param name="offset">Where it would begin, counted from a multiple of 64.</param>
    public static int PaddingFor(in EmittedSite site, long offset)
    {
        for (int padding = 0; padding < SiteClassifier.LineSize; padding++)
        {
            if (Holds(site, (ulong)(offset + padding)))
            {
                return padding;
            }
        }

        return 0; // longer than a line: there is no better place than this one
    }

    public static bool Holds(in EmittedSite site, VirtualAddress address) =>
        site.Start < 0 ? Holds(site.Placement, address, site.Kind.Budget) : (int)(address.Value % SiteClassifier.LineSize) == site.Start;

    public static bool Holds(SitePlacement placement, VirtualAddress address, int budget) => placement switch
    {
        SitePlacement.InsideAligned8 => SiteClassifier.Fits(address, budget, 8),
        SitePlacement.InsideAligned16 => SiteClassifier.Fits(address, budget, 16),
        SitePlacement.WithinCacheLine => SiteClassifier.Fits(address, budget, SiteClassifier.LineSize)
            && (SiteClassifier.Fits(address, budget, 8) || SiteClassifier.Fits(address, 2, 8)),
        _ => true,
    };

    /// <summary>Whether an instruction can be made longer by so many prefixes.</summary>
    /// <param name="before">The instruction before a site.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="padding">How many bytes are wanted.</param>
    public static bool CanTakePrefixes(in Instruction before, int length, int padding) =>
        padding <= MostPrefixes
        && padding + length <= LongestInstruction
        && !IsData(before)
        && before.FlowControl == FlowControl.Next
        && before.SegmentPrefix == Register.None
        && !(before.HasLockPrefix || before.HasRepPrefix || before.HasRepnePrefix || before.HasXacquirePrefix || before.HasXreleasePrefix);

    /// <summary>
    /// Adds the prefixes, in front of their instruction. They are the first bytes of it, so labels of it are theirs from now on: a fault is reported there too.
    /// </summary>
    public static void AddPrefixes(List<Instruction> instructions, int count)
    {
        Instruction before = instructions[^1];
        byte[] bytes = new byte[count];
        bytes.AsSpan().Fill(Prefix);
        Instruction prefixes = Instruction.CreateDeclareByte(bytes);
        prefixes.IP = before.IP;
        before.IP = 0;
        instructions[^1] = prefixes;
        instructions.Add(before);
    }

    public static void AddNops(List<Instruction> instructions, int length)
    {
        byte[] nops = new byte[length];
        NopStyle.P6.Fill(nops);
        for (int at = 0; at < length; at += NopStyle.P6.Longest)
        {
            instructions.Add(Instruction.CreateDeclareByte(nops[at..Math.Min(length, at + NopStyle.P6.Longest)]));
        }
    }

    // fwait is an instruction of its own, though Iced takes it and the one that follows for one: not worth a rule.
    private static bool IsData(in Instruction instruction) =>
        instruction.Code is Code.DeclareByte or Code.DeclareWord or Code.DeclareDword or Code.DeclareQword or Code.Zero_bytes || instruction.OpCode.Fwait;
}
