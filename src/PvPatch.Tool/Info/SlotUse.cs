using PvPatch.Linux;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Info;

/// <summary>Use of a slot: number and lengths of its sites.</summary>
/// <param name="Slot">The slot.</param>
/// <param name="Sites">Number of its sites.</param>
/// <param name="Shortest">The length of its shortest site in bytes; 0 without sites.</param>
/// <param name="Longest">The length of its longest site in bytes; 0 without sites.</param>
internal readonly record struct SlotUse(OpSlot Slot, int Sites, int Shortest, int Longest)
{
    /// <summary>Every slot in the order of the layout, with or without sites.</summary>
    public static SlotUse[] Of(KernelImage image)
    {
        SlotUse[] uses = [.. image.Layout.Slots.Select(static s => new SlotUse(s, 0, 0, 0))];
        foreach (ref readonly PatchSite site in image.Sites.Sites)
        {
            if (site.Slot < uses.Length)
            {
                SlotUse use = uses[site.Slot];
                int shortest = use.Sites == 0 ? site.Budget : Math.Min(use.Shortest, site.Budget);
                uses[site.Slot] = use with { Sites = use.Sites + 1, Shortest = shortest, Longest = Math.Max(use.Longest, site.Budget) };
            }
        }

        return uses;
    }
}
