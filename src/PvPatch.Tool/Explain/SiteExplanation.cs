using PvPatch.Linux;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Explain;

/// <summary>The facts of one site and its decisions in several plans.</summary>
internal sealed class SiteExplanation
{
    private const int AlwaysFeature = (3 * 32) + 21; // X86_FEATURE_ALWAYS, arch/x86/include/asm/cpufeatures.h of 5.10 to 7.2

    /// <param name="image">The kernel.</param>
    /// <param name="plans">The plans of the site; at least one.</param>
    /// <param name="index">The site's place in order of address.</param>
    /// <param name="names">The kernel's names.</param>
    public SiteExplanation(KernelImage image, IReadOnlyList<PatchPlan> plans, int index, KernelNames names)
    {
        Image = image;
        Plans = plans;
        Index = index;
        Names = names;
        Site = image.Sites[index];
        Slot = image.Layout[Site.Slot];
        Native = image.Native[Site.Slot];
        Alternatives = AlternativesAt(image, Site);
    }

    public KernelImage Image { get; }

    public IReadOnlyList<PatchPlan> Plans { get; }

    /// <summary>The site's place in order of address.</summary>
    public int Index { get; }

    public KernelNames Names { get; }

    public PatchSite Site { get; }

    public OpSlot Slot { get; }

    /// <summary>The content of the slot in the ops table on disk.</summary>
    public Operation Native { get; }

    /// <summary>The alternatives at the site, in the order in which the kernel applies them.</summary>
    public IReadOnlyList<AltInstr> Alternatives { get; }

    /// <summary>Whether kernels of this era check the clobbers of a site.</summary>
    public bool ClobbersCount =>
        Image.Era.Source == SiteSource.ParaInstructions
            && (Image.Elf.Bitness == 64 ? Image.Era.SiteTable64 : Image.Era.SiteTable32).HasClobbers;

    /// <summary>The offset of the site in the file.</summary>
    public long? FileOffset => Image.Elf.TryGetFileOffset(Site.Address, Site.Budget, out long offset) ? offset : null;

    /// <summary>The entry of a plan for the site.</summary>
    public SiteDecision DecisionOf(PatchPlan plan) => plan[plan.IndexContaining(Site.Address)];

    /// <summary>The plans in groups that do the same thing and leave the same bytes.</summary>
    public IEnumerable<IReadOnlyList<PatchPlan>> Groups()
    {
        var groups = new List<List<PatchPlan>>();
        foreach (PatchPlan plan in Plans)
        {
            List<PatchPlan>? same = groups.Find(g =>
                DecisionOf(g[0]).Action == DecisionOf(plan).Action && DecisionOf(g[0]).NewBytes.SequenceEqual(DecisionOf(plan).NewBytes));
            if (same is null)
            {
                groups.Add([plan]);
            }
            else
            {
                same.Add(plan);
            }
        }

        return groups;
    }

    /// <summary>The condition of an alternative as the kernel's sources write it.</summary>
    public string Condition(in AltInstr record)
    {
        AlternativeRules? rules = Image.Era.Alternatives;
        string feature = record.Feature == AlwaysFeature ? "ALWAYS"
            : record.Feature == rules?.XenPv ? "XENPV"
            : record.Feature == rules?.PvUnlock ? "PVUNLOCK"
            : record.Feature == rules?.VcpuPreempt ? "VCPUPREEMPT"
            : $"{record.Feature / 32}*32+{record.Feature % 32}";
        return record.IsNot ? $"!{feature}" : feature;
    }

    /// <summary>The bytes of an alternative's replacement; empty for an empty replacement, and where they are not in the file.</summary>
    public ReadOnlyMemory<byte> Replacement(in AltInstr record) =>
        record.ReplacementLength > 0 && Image.Elf.TryGetBytes(record.ReplacementAddress, record.ReplacementLength, out Memory<byte> bytes)
            ? bytes : default;

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
