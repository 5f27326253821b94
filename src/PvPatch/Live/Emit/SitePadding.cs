using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>What is put before a site that must begin elsewhere than where it falls.</summary>
internal static class SitePadding
{
    // ds: ignored in 64-bit mode by everything that does not branch (AMD's manual, volume 3, 1.2.4; Intel's, volume 1, 3.4.2.1).
    private const byte Prefix = 0x3e;

    // As GNU as by default. Processors of some families decode slowly what has more.
    private const int MostPrefixes = 5;

    /// <summary>
    /// Brings a site to its place: by prefixes that do nothing on the instruction before it, where that can take them, else by nops. A nop
    /// takes a place in the processor's pipeline each time it is run, which shows in small loops; a prefix does not. Assemblers keep
    /// branches off boundaries the same way.
    /// </summary>
    /// <param name="instructions">What is made: the padding is added behind the instruction before the site, or in front of it.</param>
    /// <param name="assembled">The assembler's own instructions.</param>
    /// <param name="lengths">Their lengths in bytes.</param>
    /// <param name="site">The site's place among them.</param>
    /// <param name="padding">Bytes.</param>
    public static void Add(List<Instruction> instructions, IReadOnlyList<Instruction> assembled, int[] lengths, int site, int padding)
    {
        if (padding == 0)
        {
            return;
        }

        if (site > 0 && CanTakePrefixes(assembled[site - 1], lengths[site - 1], padding))
        {
            AddPrefixes(instructions, padding);
        }
        else
        {
            AddNops(instructions, padding);
        }
    }

    /// <summary>Whether an instruction can be made longer by so many prefixes.</summary>
    /// <param name="before">The instruction before a site.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="padding">How many bytes are wanted.</param>
    private static bool CanTakePrefixes(in Instruction before, int length, int padding) =>
        padding <= MostPrefixes
        && padding + length <= SiteBytes.LongestInstruction
        && !IsData(before)
        && before.FlowControl == FlowControl.Next
        && before.SegmentPrefix == Register.None
        && !(before.HasLockPrefix || before.HasRepPrefix || before.HasRepnePrefix || before.HasXacquirePrefix || before.HasXreleasePrefix);

    /// <summary>
    /// Adds the prefixes, in front of their instruction. They are the first bytes of it, so labels of it are theirs from now on: a fault is
    /// reported there too.
    /// </summary>
    private static void AddPrefixes(List<Instruction> instructions, int count)
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

    private static void AddNops(List<Instruction> instructions, int length)
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
        instruction.Code is Code.DeclareByte or Code.DeclareWord or Code.DeclareDword or Code.DeclareQword or Code.Zero_bytes
            || instruction.OpCode.Fwait;
}
