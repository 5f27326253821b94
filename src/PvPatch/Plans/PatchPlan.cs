using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using PvPatch.Images;

namespace PvPatch.Plans;

/// <summary>
/// For every site the decision, its reason, old and new bytes. A plan knows nothing of how it was decided: ops tables, alternatives and whatever
/// mechanism comes next yield the same kind of plan, so one applier, one verifier, one revert and one report serve all.
/// </summary>
/// <remarks>Immutable. Applying it to an image writes that image's bytes; do so while nothing runs or writes them.</remarks>
public sealed class PatchPlan
{
    /// <summary>How many of the plans it was made from, one before the other, a plan knows: the states from which it can be applied.</summary>
    internal const int RememberedAncestors = 4;

    private readonly byte[] _overflow;
    private readonly ILogger _logger;
    private PlanSummary? _summary;

    internal PatchPlan(PlanHead head, PlanEntry[] entries, IReadOnlyList<PlanOutcome> outcomes, byte[] overflow, ILogger? logger)
    {
        Head = head;
        Entries = entries;
        Outcomes = outcomes;
        _overflow = overflow;
        _logger = logger ?? NullLogger.Instance;
    }

    /// <summary>The name of what the sites are turned to: a backend's name.</summary>
    public string Backend => Head.Backend;

    /// <summary>The name of the rules the decisions follow.</summary>
    public string Rules => Head.Rules;

    /// <summary>32 or 64.</summary>
    public int Bitness => Head.Bitness;

    /// <summary>The segments of the image it was made for.</summary>
    public IReadOnlyList<PlanSegment> Segments => Head.Segments;

    /// <summary>What there is to know beside the decisions: missing operations that sites use, and the like. Never errors.</summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics => Head.Diagnostics;

    /// <summary>How many sites there are, thunks included.</summary>
    public int Count => Entries.Length;

    /// <summary>How often what is done.</summary>
    public PlanSummary Summary => _summary ??= new PlanSummary(this);

    /// <summary>The decision for a site.</summary>
    /// <param name="index">Its place in order of address.</param>
    /// <returns>The decision.</returns>
    public SiteDecision this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(index);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
            return new SiteDecision(this, index);
        }
    }

    internal PlanHead Head { get; }

    internal PlanEntry[] Entries { get; }

    internal IReadOnlyList<PlanOutcome> Outcomes { get; }

    internal ILogger Logger => _logger;

    /// <summary>Finds the site that has a byte at an address.</summary>
    /// <param name="address">The run address.</param>
    /// <returns>Its index, or -1.</returns>
    public int IndexContaining(VirtualAddress address)
    {
        int low = 0;
        int high = Entries.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            ref readonly PlanEntry entry = ref Entries[middle];
            if (address.Value < entry.Address)
            {
                high = middle - 1;
            }
            else if (address.Value - entry.Address < entry.Length)
            {
                return middle;
            }
            else
            {
                low = middle + 1;
            }
        }

        return -1;
    }

    /// <summary>Writes the new bytes, or throws. See <see cref="TryApply"/>.</summary>
    /// <param name="image">The image.</param>
    /// <returns>What was written.</returns>
    /// <exception cref="PatchException">A site is outside the image (PV4001) or holds unknown bytes (PV4002); nothing was written.</exception>
    public ApplyResult Apply(CodeImage image) =>
        TryApply(image, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics) ? result : throw new PatchException(diagnostics[0]);

    /// <summary>
    /// Checks that every site holds its original bytes, the new ones or those of the plan this one was made from; then, and only
    /// then, writes the new bytes where they are not there yet. Applying twice writes nothing the second time.
    /// </summary>
    /// <param name="image">The image; its bytes are written in place.</param>
    /// <param name="result">What was written.</param>
    /// <param name="diagnostics">Why nothing was written, up to a hundred findings.</param>
    /// <returns>Whether the image now holds the new bytes at every site.</returns>
    public bool TryApply(CodeImage image, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        return OfflineApplier.TryRun(this, image, toNew: true, out result, out diagnostics);
    }

    /// <summary>Writes the original bytes, or throws. See <see cref="TryRevert"/>.</summary>
    /// <param name="image">The image.</param>
    /// <returns>What was written.</returns>
    /// <exception cref="PatchException">A site is outside the image (PV4001) or holds unknown bytes (PV4002); nothing was written.</exception>
    public ApplyResult Revert(CodeImage image) =>
        TryRevert(image, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics) ? result : throw new PatchException(diagnostics[0]);

    /// <summary>Gives the image its original bytes back, bit for bit, after the same checks as <see cref="TryApply"/>.</summary>
    /// <param name="image">The image; its bytes are written in place.</param>
    /// <param name="result">What was written.</param>
    /// <param name="diagnostics">Why nothing was written, up to a hundred findings.</param>
    /// <returns>Whether the image now holds the original bytes at every site.</returns>
    public bool TryRevert(CodeImage image, out ApplyResult result, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        return OfflineApplier.TryRun(this, image, toNew: false, out result, out diagnostics);
    }

    /// <summary>Compares an image with the plan; writes nothing.</summary>
    /// <param name="image">The image.</param>
    /// <returns>How many sites hold the new bytes, the original ones, or others, and where the others are.</returns>
    public VerifyResult Verify(CodeImage image)
    {
        ArgumentNullException.ThrowIfNull(image);
        return PlanVerifier.Run(this, image);
    }

    /// <summary>The same plan under another name, where one backend is planned in several settings that have to be told apart.</summary>
    /// <param name="backend">The name: what <see cref="Backend"/> of the new plan gives.</param>
    /// <returns>A plan that shares everything else with this one.</returns>
    public PatchPlan Named(string backend)
    {
        ArgumentException.ThrowIfNullOrEmpty(backend);
        return new PatchPlan(Head with { Backend = backend }, Entries, Outcomes, _overflow, _logger);
    }

    /// <summary>
    /// The plan with no more than some of the plans it was made from. A host that goes from backend to backend for ever must not keep
    /// every plan it ever made; an image that is further behind than this is refused, not damaged.
    /// </summary>
    internal PatchPlan WithAncestors(int count) =>
        Head.Previous is null ? this
        : new PatchPlan(Head with { Previous = count > 0 ? Head.Previous.WithAncestors(count - 1) : null }, Entries, Outcomes, _overflow, _logger);

    internal string SectionOf(VirtualAddress address)
    {
        foreach (PlanSegment segment in Head.Segments)
        {
            if (segment.Contains(address))
            {
                return segment.Name;
            }
        }

        return "";
    }

    internal ReadOnlySpan<byte> OldBytesOf(int index)
    {
        ref PlanEntry entry = ref Entries[index];
        return entry.IsInPlace
            ? PlanEntry.AsBytes(ref entry.Old)[..entry.Length]
            : _overflow.AsSpan(entry.OverflowOffset, entry.Length);
    }

    internal ReadOnlySpan<byte> NewBytesOf(int index)
    {
        ref PlanEntry entry = ref Entries[index];
        return entry.IsInPlace
            ? PlanEntry.AsBytes(ref entry.New)[..entry.Length]
            : _overflow.AsSpan(entry.OverflowOffset + entry.Length, entry.Length);
    }

    /// <summary>What the plan this one was made from leaves at a site; nothing where there is none.</summary>
    internal ReadOnlySpan<byte> BytesLeftByPredecessor(int index)
    {
        VirtualAddress address = Entries[index].Address;
        int there = Head.Previous?.IndexContaining(address) ?? -1;
        return there >= 0 && Head.Previous!.Entries[there].Address == address.Value ? Head.Previous.NewBytesOf(there) : default;
    }

    /// <summary>Whether some plan this one was made from put these bytes at a site.</summary>
    internal bool IsFromPredecessor(int index, ReadOnlySpan<byte> bytes)
    {
        VirtualAddress address = Entries[index].Address;
        for (PatchPlan? plan = Head.Previous; plan is not null; plan = plan.Head.Previous)
        {
            int there = plan.IndexContaining(address);
            if (there >= 0 && plan.Entries[there].Address == address.Value && plan.NewBytesOf(there).SequenceEqual(bytes))
            {
                return true;
            }
        }

        return false;
    }
}
