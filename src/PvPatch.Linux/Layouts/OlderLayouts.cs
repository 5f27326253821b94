using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Finds the order of slots of a kernel without type information among those known: the one that its sites allow and its tables prove.
/// </summary>
internal static class OlderLayouts
{
    /// <summary>Finds the layout.</summary>
    /// <param name="elf">The image.</param>
    /// <param name="symbols">Its symbols.</param>
    /// <param name="evidence">Evidence of its sites.</param>
    /// <param name="placement">Arrangement of its slots.</param>
    /// <param name="allowed">The layouts that the sites allow, proved or not.</param>
    /// <returns>The layout; <see langword="null"/> where none or more than one is proved.</returns>
    public static OpsLayout? Find(
        ElfImage elf, KernelSymbols? symbols, SiteEvidence evidence, SlotPlacement placement, out IReadOnlyList<OpsLayout> allowed)
    {
        allowed = [.. KernelLayouts.For(evidence.Bitness, placement).Where(l => Allows(l, evidence))];
        var proof = new LayoutProof(elf, symbols);

        // The seven types of 2.6.20 and 2.6.21 depend on no option, so there is nothing to prove.
        OpsLayout[] proved = [.. allowed.Where(l => placement == SlotPlacement.WordByWord
            || (TryFindWords(l, symbols, evidence, placement, out VirtualAddress[]? words) && proof.Holds(l, words!)))];
        return proved.Length == 1 ? proved[0] : null;
    }

    /// <summary>Whether every site has a slot in the layout, and is a jump where that slot is one.</summary>
    private static bool Allows(OpsLayout layout, SiteEvidence evidence) =>
        evidence.HighestType < layout.Count
        && evidence.CalledTypes.All(t => layout[t].Kind == SlotKind.Call)
        && evidence.JumpedTypes.All(t => layout[t].Kind == SlotKind.Jump);

    private static bool TryFindWords(
        OpsLayout layout, KernelSymbols? symbols, SiteEvidence evidence, SlotPlacement placement, out VirtualAddress[]? words)
    {
        if (placement != SlotPlacement.OneTable)
        {
            return TableLocator.TryFind(evidence, layout, placement, symbols, out words, out _);
        }

        evidence.Vote(static type => type, out ulong table, out int voices, out int of);
        words = [.. layout.Slots.Select(s => (VirtualAddress)unchecked(table + (ulong)(s.Index * (evidence.Bitness / 8))))];
        return voices * 2 > of;
    }
}
