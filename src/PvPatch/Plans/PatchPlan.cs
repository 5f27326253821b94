using System.Collections;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using PvPatch.Images;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>
/// For every site the decision, its reason, old and new bytes. A plan knows nothing of how it was decided: ops tables, alternatives and
/// whatever mechanism comes next yield the same kind of plan, so one applier, one verifier, one revert and one report serve all.
/// </summary>
/// <remarks>Immutable. Applying it to an image writes that image's bytes; do so while nothing runs or writes them.</remarks>
public sealed class PatchPlan : IReadOnlyList<SiteDecision>
{
    /// <summary>
    /// How many of the plans it was made from, one before the other, a plan knows: the states from which it can be applied.
    /// </summary>
    internal const int RememberedAncestors = 4;

    private readonly PlanOutcome[] _outcomes;
    private readonly byte[] _overflow;
    private PlanSummary? _summary;

    internal PatchPlan(PlanEntry[] entries, PlanForms forms, byte[] overflow, ILogger? logger)
    {
        Entries = entries;
        // The arrays as they are now: what is appended later is no concern of this plan.
        Olds = forms.Olds;
        News = forms.News;
        _outcomes = forms.Outcomes;
        OutcomeCount = forms.OutcomeCount;
        _overflow = overflow;
        Logger = logger ?? NullLogger.Instance;
    }

    private PatchPlan(PatchPlan other)
    {
        Entries = other.Entries;
        Olds = other.Olds;
        News = other.News;
        _outcomes = other._outcomes;
        OutcomeCount = other.OutcomeCount;
        _overflow = other._overflow;
        Logger = other.Logger;
        Backend = other.Backend;
        Rules = other.Rules;
        Bitness = other.Bitness;
        ChangeCount = other.ChangeCount;
        Segments = other.Segments;
        Diagnostics = other.Diagnostics;
        Previous = other.Previous;
    }

    /// <summary>The name of what the sites are turned to: a backend's name.</summary>
    public string Backend { get; internal init; } = "";

    /// <summary>The name of the rules the decisions follow.</summary>
    public string Rules { get; internal init; } = "";

    /// <summary>32 or 64.</summary>
    public int Bitness { get; internal init; }

    /// <summary>The segments of the image it was made for.</summary>
    public IReadOnlyList<PlanSegment> Segments { get; internal init; } = [];

    /// <summary>What there is to know beside the decisions: missing operations that sites use, and the like. Never errors.</summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics { get; internal init; } = [];

    /// <summary>How many sites there are, thunks included.</summary>
    public int Count => Entries.Length;

    /// <summary>Counts of the plan's actions.</summary>
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

    /// <summary>The plan whose bytes the image held when this one was made; its originals are this one's originals.</summary>
    internal PatchPlan? Previous { get; init; }

    /// <summary>Number of sites whose new bytes are not their old ones: what is written where every site holds the one or the other.</summary>
    internal int ChangeCount { get; init; }

    internal PlanEntry[] Entries { get; }

    /// <summary>What the entries refer to: old forms.</summary>
    internal OldForm[] Olds { get; }

    /// <summary>What the entries refer to: new forms.</summary>
    internal NewForm[] News { get; }

    /// <summary>Outcomes there are; some may be of other plans.</summary>
    internal int OutcomeCount { get; }

    /// <summary>Whether some site's bytes are in the overflow.</summary>
    internal bool HasOverflow => _overflow.Length > 0;

    internal ILogger Logger { get; }

    /// <summary>Enumerates the decisions in order of address.</summary>
    /// <returns>The enumerator.</returns>
    public IEnumerator<SiteDecision> GetEnumerator()
    {
        for (int i = 0; i < Count; i++)
        {
            yield return new SiteDecision(this, i);
        }
    }

    /// <summary>Finds the site that has a byte at an address.</summary>
    /// <param name="address">The run address.</param>
    /// <returns>Its index, or -1.</returns>
    public int IndexContaining(VirtualAddress address)
    {
        int low = 0;
        int high = Entries.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            (low, high) = Entries[middle].Address <= address.Value ? (middle + 1, high) : (low, middle);
        }

        int last = low - 1; // the last site that does not begin behind the address
        return last >= 0 && address.Value - Entries[last].Address < (ulong)LengthOf(last) ? last : -1;
    }

    /// <summary>Writes the new bytes, or throws. See <see cref="TryApply"/>.</summary>
    /// <param name="image">The image.</param>
    /// <returns>What was written.</returns>
    /// <exception cref="PatchException">
    /// A site is outside the image (PV4001) or holds unknown bytes (PV4002); nothing was written.
    /// </exception>
    public ApplyResult Apply(CodeImage image) =>
        TryApply(image, out ApplyResult result) ? result : throw new PatchException(result.Diagnostics[0]);

    /// <summary>
    /// Checks that every site holds its original bytes, the new ones or those of one of the last four plans this one was made from; then,
    /// and only then, writes the new bytes where they are not there yet. Applying twice writes nothing the second time.
    /// </summary>
    /// <param name="image">The image; its bytes are written in place.</param>
    /// <param name="result">Counts of what was written, or the diagnostics for which nothing was.</param>
    /// <returns>Whether the image now holds the new bytes at every site.</returns>
    public bool TryApply(CodeImage image, out ApplyResult result)
    {
        ArgumentNullException.ThrowIfNull(image);
        return ImageApplier.TryRun(this, image, toNew: true, out result);
    }

    /// <summary>Writes the original bytes, or throws. See <see cref="TryRevert"/>.</summary>
    /// <param name="image">The image.</param>
    /// <returns>What was written.</returns>
    /// <exception cref="PatchException">
    /// A site is outside the image (PV4001) or holds unknown bytes (PV4002); nothing was written.
    /// </exception>
    public ApplyResult Revert(CodeImage image) =>
        TryRevert(image, out ApplyResult result) ? result : throw new PatchException(result.Diagnostics[0]);

    /// <summary>Gives the image its original bytes back, bit for bit, after the same checks as <see cref="TryApply"/>.</summary>
    /// <param name="image">The image; its bytes are written in place.</param>
    /// <param name="result">Counts of what was written, or the diagnostics for which nothing was.</param>
    /// <returns>Whether the image now holds the original bytes at every site.</returns>
    public bool TryRevert(CodeImage image, out ApplyResult result)
    {
        ArgumentNullException.ThrowIfNull(image);
        return ImageApplier.TryRun(this, image, toNew: false, out result);
    }

    /// <summary>Compares an image with the plan; writes nothing.</summary>
    /// <param name="image">The image.</param>
    /// <returns>How many sites hold the new bytes, the original ones, or others, and where the others are.</returns>
    public VerifyResult Verify(CodeImage image)
    {
        ArgumentNullException.ThrowIfNull(image);
        return VerifyResult.Of(this, image);
    }

    /// <summary>Checks a plan that was read from a file, or throws. See <see cref="TryCheckAgainst"/>.</summary>
    /// <param name="image">The image it is to be applied to or reverted in; read only.</param>
    /// <param name="sites">The image's own site table.</param>
    /// <param name="options">What else is known of the image.</param>
    /// <exception cref="PatchException">The plan does not belong to the image; the diagnostic is the first error.</exception>
    public void CheckAgainst(CodeImage image, SiteTable sites, PlanCheckOptions? options = null)
    {
        if (!TryCheckAgainst(image, sites, options, out IReadOnlyList<PatchDiagnostic> diagnostics))
        {
            throw new PatchException(diagnostics[0]);
        }
    }

    /// <summary>
    /// Checks a plan that was read from a file against an image: its sites against the image's own table, old bytes that are to be written
    /// back against what may stand at a site before it is patched, new bytes for being whole instructions. To be asked before
    /// <see cref="TryApply"/> or <see cref="TryRevert"/>, which take the plan at its word.
    /// </summary>
    /// <param name="image">The image it is to be applied to or reverted in; read only.</param>
    /// <param name="sites">The image's own site table.</param>
    /// <param name="options">What else is known of the image; nothing where <see langword="null"/>.</param>
    /// <param name="diagnostics">
    /// Why the plan does not belong to the image, up to a hundred findings: wrong bitness (PV3005), a site outside the image (PV4001), one
    /// that the table does not have or has for another slot (PV5003), old bytes that are no call or one through another slot (PV5004), new
    /// bytes that are no instructions (PV5002).
    /// </param>
    /// <returns>Whether the plan belongs to the image.</returns>
    public bool TryCheckAgainst(CodeImage image, SiteTable sites, PlanCheckOptions? options, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(sites);
        diagnostics = PlanCheck.Run(this, image, sites, options ?? new PlanCheckOptions());
        return diagnostics.Count == 0;
    }

    /// <summary>The same plan under another name, where one backend is planned in several settings that have to be told apart.</summary>
    /// <param name="backend">The name: what <see cref="Backend"/> of the new plan gives.</param>
    /// <returns>A plan that shares everything else with this one.</returns>
    public PatchPlan Named(string backend)
    {
        ArgumentException.ThrowIfNullOrEmpty(backend);
        return new PatchPlan(this) { Backend = backend };
    }

    /// <summary>
    /// The plan with no more than some of the plans it was made from. A host that goes from backend to backend for ever must not keep
    /// every plan it ever made; an image that is further behind than this is refused, not damaged.
    /// </summary>
    internal PatchPlan WithAncestors(int count) =>
        Previous is null ? this
        : new PatchPlan(this) { Previous = count > 0 ? Previous.WithAncestors(count - 1) : null };

    internal string SectionOf(VirtualAddress address)
    {
        foreach (PlanSegment segment in Segments)
        {
            if (segment.Contains(address))
            {
                return segment.Name;
            }
        }

        return "";
    }

    /// <summary>Whether some outcome is a thunk's: without one, nobody has to look through the sites for them.</summary>
    internal bool MayHaveThunks => Array.Exists(_outcomes, static o => o is { Action: PatchAction.Thunk });

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int LengthOf(int index)
    {
        ref readonly PlanEntry entry = ref Entries[index];
        return entry.IsOverflow ? entry.OverflowLength : Olds[entry.Old].Length;
    }

    internal int OutcomeIndexOf(int index)
    {
        ref readonly PlanEntry entry = ref Entries[index];
        return entry.IsOverflow ? MemoryMarshal.Read<int>(_overflow.AsSpan(entry.Field)) : News[entry.New].Outcome;
    }

    internal PlanOutcome OutcomeAt(int outcome) => _outcomes[outcome];

    /// <summary>The old bytes of a site.</summary>
    /// <param name="index">The site.</param>
    /// <param name="scratch">16 bytes, in which they may be put together.</param>
    internal ReadOnlySpan<byte> OldBytesOf(int index, Span<byte> scratch)
    {
        ref readonly PlanEntry entry = ref Entries[index];
        if (entry.IsOverflow)
        {
            return _overflow.AsSpan(entry.Field + sizeof(int), entry.OverflowLength);
        }

        ref readonly OldForm old = ref Olds[entry.Old];
        old.With(entry.Field).CopyTo(scratch);
        return scratch[..old.Length];
    }

    /// <summary>The new bytes of a site.</summary>
    /// <param name="index">The site.</param>
    /// <param name="scratch">16 bytes, in which they may be put together.</param>
    internal ReadOnlySpan<byte> NewBytesOf(int index, Span<byte> scratch)
    {
        ref readonly PlanEntry entry = ref Entries[index];
        if (entry.IsOverflow)
        {
            return _overflow.AsSpan(entry.Field + sizeof(int) + entry.OverflowLength, entry.OverflowLength);
        }

        ref readonly OldForm old = ref Olds[entry.Old];
        News[entry.New].At(entry.Address, old.With(entry.Field)).CopyTo(scratch);
        return scratch[..old.Length];
    }

    /// <summary>Old and new bytes of a site of at most 16 bytes, zero behind them.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void GetVectors(int index, out Vector128<byte> old, out Vector128<byte> @new)
    {
        ref readonly PlanEntry entry = ref Entries[index];
        if (entry.IsOverflow)
        {
            (old, @new) = (SiteBytes.From(OldBytesOf(index, default)).Vector, SiteBytes.From(NewBytesOf(index, default)).Vector);
            return;
        }

        old = Olds[entry.Old].With(entry.Field);
        @new = News[entry.New].At(entry.Address, old);
    }

    /// <summary>What the plan this one was made from leaves at a site; nothing where there is none.</summary>
    internal ReadOnlySpan<byte> BytesLeftByPredecessor(int index, Span<byte> scratch) =>
        Previous is null ? default : Previous.NewBytesAt(Entries[index].Address, LengthOf(index), scratch);

    /// <summary>Whether some plan this one was made from put these bytes at a site.</summary>
    internal bool IsFromPredecessor(int index, ReadOnlySpan<byte> bytes)
    {
        Span<byte> scratch = stackalloc byte[SiteBytes.MaxLength];
        PatchPlan? plan = Previous;
        while (plan is not null && !plan.NewBytesAt(Entries[index].Address, bytes.Length, scratch).SequenceEqual(bytes))
        {
            plan = plan.Previous;
        }

        return plan is not null;
    }

    /// <summary>The new bytes of the site of this address and length; nothing where there is none.</summary>
    private ReadOnlySpan<byte> NewBytesAt(VirtualAddress address, int length, Span<byte> scratch)
    {
        int index = IndexContaining(address);
        return index >= 0 && Entries[index].Address == address.Value && LengthOf(index) == length ? NewBytesOf(index, scratch) : default;
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
