using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>Finds a label that is used and placed nowhere: Iced takes its number for an address and makes a jump to there.</summary>
internal static class LabelCheck
{
    /// <summary>Throws where an assembler's code jumps to a label, or refers to one, that is not placed.</summary>
    public static void ThrowIfUnplaced(Assembler assembler)
    {
        const ulong LowestAddress = 1 << 16; // no code is ever mapped below
        var placed = new HashSet<ulong>();
        foreach (Instruction instruction in assembler.Instructions)
        {
            placed.Add(instruction.IP);
        }

        foreach (Instruction instruction in assembler.Instructions)
        {
            ulong target = BodyBuilder.IsNearBranch(instruction) ? instruction.NearBranchTarget
                : instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress
                : LowestAddress;
            if (target < LowestAddress && !placed.Contains(target))
            {
                throw new PatchException(SiteEmitter.Misuse("a label is used but not placed") with { Found = instruction.ToString() });
            }
        }
    }
}
