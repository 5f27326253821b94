using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Objects;

/// <summary>Names of ops tables and functions whose callers are sites.</summary>
public sealed record SiteNames
{
    /// <summary>The slots. A site may destroy what functions of its slot's convention destroy.</summary>
    public required OpsLayout Layout { get; init; }

    /// <summary>
    /// Symbols of ops tables, each with the type numbers of its slots (<c>0..24</c>). Where its symbol has a size, the table ends there at
    /// the latest.
    /// </summary>
    public IReadOnlyDictionary<string, Range> Tables { get; init; } = new Dictionary<string, Range>();

    /// <summary>Symbols of functions, each with the type number of the slot whose operation it is; one function a slot.</summary>
    public IReadOnlyDictionary<string, int> Functions { get; init; } = new Dictionary<string, int>();
}

/// <summary>Sites that relocations tell of: calls and jumps through a listed table, direct calls of a listed function.</summary>
public sealed class RelocatedSites
{
    internal RelocatedSites(SiteTable sites, IReadOnlyList<VirtualAddress> slotAddresses, IReadOnlyList<VirtualAddress> slotFunctions)
    {
        Sites = sites;
        SlotAddresses = slotAddresses;
        SlotFunctions = slotFunctions;
    }

    /// <summary>
    /// The sites. Each is one instruction: 6 bytes of <c>ff 15</c> or <c>ff 25</c>, 7 of <c>ff 14 25</c>, 5 of a direct call.
    /// </summary>
    public SiteTable Sites { get; }

    /// <summary>
    /// Addresses of the slots' words by slot index, for <see cref="PlanOptions.SlotAddresses"/>; 0 where the file does not define the
    /// table.
    /// </summary>
    public IReadOnlyList<VirtualAddress> SlotAddresses { get; }

    /// <summary>
    /// Addresses of the listed functions by slot index, for <see cref="PlanOptions.SlotFunctions"/>; 0 where the file does not define it.
    /// </summary>
    public IReadOnlyList<VirtualAddress> SlotFunctions { get; }
}
