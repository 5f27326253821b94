using System.Collections.ObjectModel;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Records;

/// <summary>
/// The sites of all mechanisms that code in assembler or C recorded with <c>pvpatch.inc</c>: read from the section
/// <c>pvpatch_sites</c> and checked. No two sites share a byte.
/// </summary>
public sealed class SiteRecords
{
    private readonly IReadOnlyDictionary<int, VirtualAddress> _slotWords;
    private readonly IReadOnlyDictionary<int, VirtualAddress> _slotFunctions;

    internal SiteRecords(SiteRecordReader read, SiteTable sites)
    {
        Sites = sites;
        StaticKeys = ByAddress(read.StaticKeys, static r => r.Address);
        MultiBranches = ByAddress(read.MultiBranches, static r => r.Address);
        StaticCalls = ByAddress(read.StaticCalls, static r => r.Address);
        Variants = ByAddress(read.Variants, static r => r.Address);
        Alternatives = ByAddress(read.Alternatives, static r => r.Address);
        _slotWords = read.SlotWords;
        _slotFunctions = read.SlotFunctions;
    }

    /// <summary>The name of the section of records.</summary>
    public const string SectionName = "pvpatch_sites";

    /// <summary>The name of the section of names.</summary>
    public const string NamesSectionName = "pvpatch_names";

    /// <summary>The ops sites, for the planner.</summary>
    public SiteTable Sites { get; }

    /// <summary>Records of static keys, in order of address.</summary>
    public IReadOnlyList<StaticKeyRecord> StaticKeys { get; }

    /// <summary>Sites of multiway branches, in order of address: each with the records of all its ways.</summary>
    public IReadOnlyList<MultiBranchRecord> MultiBranches { get; }

    /// <summary>Records of static calls, in order of address.</summary>
    public IReadOnlyList<StaticCallRecord> StaticCalls { get; }

    /// <summary>Records of variants, in order of address; those of one region in the order of the table.</summary>
    public IReadOnlyList<ReplacementRecord> Variants { get; }

    /// <summary>
    /// Records of replacements, in order of address; those of one region in the order of the table, in which the last applicable one
    /// counts.
    /// </summary>
    public IReadOnlyList<ReplacementRecord> Alternatives { get; }

    /// <summary>Number of records of all mechanisms.</summary>
    public int Count => Sites.Count + StaticKeys.Count + MultiBranches.Sum(static r => r.Labels.Count) + StaticCalls.Count + Variants.Count
        + Alternatives.Count;

    /// <summary>Reads a table, or throws.</summary>
    /// <param name="code">The code that the sites and the replacements lie in.</param>
    /// <param name="records">The table of records with its run address: the section <c>pvpatch_sites</c>.</param>
    /// <param name="names">The names with their run address: the section <c>pvpatch_names</c>; none where no record has a name.</param>
    /// <returns>The records.</returns>
    /// <exception cref="PatchException">A record is not sound; see <see cref="TryRead"/>.</exception>
    public static SiteRecords Read(CodeImage code, CodeSegment records, CodeSegment? names = null) =>
        TryRead(code, records, names, out SiteRecords? read, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? read : throw new PatchException(diagnostics[0]);

    /// <summary>Reads a table where every record is sound.</summary>
    /// <param name="code">The code that the sites and the replacements lie in.</param>
    /// <param name="records">The table of records with its run address: the section <c>pvpatch_sites</c>.</param>
    /// <param name="names">The names with their run address: the section <c>pvpatch_names</c>; none where no record has a name.</param>
    /// <param name="read">The records.</param>
    /// <param name="diagnostics">
    /// Every finding (up to a hundred), with the record's number as <see cref="PatchDiagnostic.SiteIndex"/>: a table that is cut off
    /// (PV1010), a site outside the code (PV1005), empty (PV1001), too long (PV1002) or sharing bytes with another (PV1003, PV1004), a
    /// version or mechanism that is not known (PV1011), a field with a value it can't have (PV1012), a name that is missing or no text
    /// (PV1013), a target outside the code or out of reach (PV1014), slots or ways that contradict one another (PV1015).
    /// </param>
    /// <returns>Whether all records are sound.</returns>
    public static bool TryRead(
        CodeImage code, CodeSegment records, CodeSegment? names, [NotNullWhen(true)] out SiteRecords? read,
        out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(code);
        ArgumentNullException.ThrowIfNull(records);
        return new SiteRecordReader(code, records, names).TryRead(out read, out diagnostics);
    }

    /// <summary>Makes a plan of changes, or throws. See <see cref="TryPlan"/>.</summary>
    /// <param name="image">The image whose records these are; read only.</param>
    /// <param name="changes">Says what is wanted.</param>
    /// <param name="options">As for <see cref="PatchPlanner"/>; the slots' words and functions come from the records where not given.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="PatchException">The changes can't be planned.</exception>
    public PatchPlan Plan(CodeImage image, Action<RecordChanges> changes, PlanOptions? options = null) =>
        TryPlan(image, changes, options, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan : throw new PatchException(diagnostics[0]);

    /// <summary>
    /// Makes one plan of changes of all mechanisms: operations, keys, branches, static calls, variants, alternatives. Applied,
    /// verified, compared and reverted as any plan.
    /// </summary>
    /// <param name="image">The image whose records these are; read only.</param>
    /// <param name="changes">Says what is wanted.</param>
    /// <param name="options">
    /// As for <see cref="PatchPlanner"/>; the slots' words and functions come from the records where not given. With
    /// <see cref="PlanOptions.Previous"/> the plan goes on from one made before: its old bytes are the originals.
    /// </param>
    /// <param name="plan">The plan.</param>
    /// <param name="diagnostics">
    /// Where there is no plan, why: no record has a name (PV3010); a site holds bytes that none of its mechanism's are (PV3001), or can't
    /// hold what is asked for (PV3011); as <see cref="PatchPlanner"/> for the operations. Else the plan's warnings.
    /// </param>
    /// <returns>Whether there is a plan.</returns>
    public bool TryPlan(
        CodeImage image, Action<RecordChanges> changes, PlanOptions? options, [NotNullWhen(true)] out PatchPlan? plan,
        out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(changes);
        var wanted = new RecordChanges();
        changes(wanted);
        return new RecordPlanner(this, image, wanted, options ?? new PlanOptions()).TryRun(out plan, out diagnostics);
    }

    /// <summary>Addresses of the slots' words as the records name them, for <c>PlanOptions.SlotAddresses</c>.</summary>
    /// <param name="slots">Number of slots of the layout.</param>
    /// <returns>One address for each slot; 0 where no record names the word.</returns>
    public IReadOnlyList<VirtualAddress> SlotAddresses(int slots) => BySlot(_slotWords, slots);

    /// <summary>Addresses of the functions that direct calls at ops sites call, for <c>PlanOptions.SlotFunctions</c>.</summary>
    /// <param name="slots">Number of slots of the layout.</param>
    /// <returns>One address for each slot; 0 where no site of the slot is a direct call.</returns>
    public IReadOnlyList<VirtualAddress> SlotFunctions(int slots) => BySlot(_slotFunctions, slots);

    private static VirtualAddress[] BySlot(IReadOnlyDictionary<int, VirtualAddress> known, int slots)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(slots);
        var addresses = new VirtualAddress[slots];
        foreach ((int slot, VirtualAddress address) in known)
        {
            if (slot < slots)
            {
                addresses[slot] = address;
            }
        }

        return addresses;
    }

    private static ReadOnlyCollection<T> ByAddress<T>(IEnumerable<T> records, Func<T, VirtualAddress> address) =>
        Array.AsReadOnly(records.OrderBy(address).ToArray()); // stable
}
