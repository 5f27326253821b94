using PvPatch.Linux.Alternatives;
using PvPatch.Linux.Kernel;
using PvPatch.Ops;
using PvPatch.Plans;
using PvPatch.Sites;

namespace PvPatch.Tool.Kernels;

/// <summary>Everything known of one site, gathered to be told.</summary>
internal sealed class SiteExplanation
{
    public SiteExplanation(KernelImage image, PatchPlan plan, int index, KernelNames names)
    {
        Image = image;
        Plan = plan;
        Index = index;
        Names = names;
        Site = image.Sites[index];
        Decision = plan[plan.IndexContaining(Site.Address)];
        Slot = image.Layout[Site.Slot];
        Native = image.Native[Site.Slot];
        Alternatives = AlternativesAt(image, Site);
    }

    public KernelImage Image { get; }

    public PatchPlan Plan { get; }

    /// <summary>The site's place in order of address.</summary>
    public int Index { get; }

    public KernelNames Names { get; }

    public PatchSite Site { get; }

    public SiteDecision Decision { get; }

    public OpSlot Slot { get; }

    /// <summary>What the ops table on disk holds for the slot.</summary>
    public Operation Native { get; }

    /// <summary>The alternatives that the kernel lays over the site, in the order it does.</summary>
    public IReadOnlyList<AltInstr> Alternatives { get; }

    /// <summary>Whether kernels of this era look at what a site says may be destroyed.</summary>
    public bool ClobbersCount =>
        Image.Era.Source == SiteSource.ParaInstructions && (Plan.Bitness == 64 ? Image.Era.SiteTable64 : Image.Era.SiteTable32).HasClobbers;

    /// <summary>Where the site is in the file.</summary>
    public long? FileOffset => Image.Elf.TryGetFileOffset(Site.Address, Site.Budget, out long offset) ? offset : null;

    /// <summary>The condition of an alternative as the kernel's sources write it.</summary>
    public string Condition(in AltInstr record)
    {
        AlternativeRules? rules = Image.Era.Alternatives;
        string feature = record.Feature == rules?.XenPv ? "XENPV"
            : record.Feature == rules?.PvUnlock ? "PVUNLOCK"
            : record.Feature == rules?.VcpuPreempt ? "VCPUPREEMPT"
            : $"{record.Feature / 32}*32+{record.Feature % 32}";
        return record.IsNot ? $"!{feature}" : feature;
    }

    /// <summary>The bytes an alternative would put there; empty for "nothing", and where they are not in the file.</summary>
    public ReadOnlyMemory<byte> Replacement(in AltInstr record) =>
        record.ReplacementLength > 0 && Image.Elf.TryGetBytes(record.ReplacementAddress, record.ReplacementLength, out Memory<byte> bytes) ? bytes : default;

    private static List<AltInstr> AlternativesAt(KernelImage image, PatchSite site)
    {
        var found = new List<AltInstr>();
        foreach (ref readonly AltInstr record in image.Alternatives is null ? [] : image.Alternatives.Records)
        {
            if (record.Address == site.Address)
            {
                found.Add(record);
            }
        }

        return found;
    }
}
