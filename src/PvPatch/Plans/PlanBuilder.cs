using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using PvPatch.Images;

namespace PvPatch.Plans;

/// <summary>
/// Collects decisions into a <see cref="PatchPlan"/>: what a mechanism's planner writes to. Keeps the rules every plan keeps: sites in
/// order, none sharing a byte, old and new bytes of one length.
/// </summary>
internal sealed class PlanBuilder
{
    private readonly string _backend;
    private readonly string _rules;
    private readonly int _bitness;
    private readonly IReadOnlyList<PlanSegment> _segments;
    private readonly List<PatchDiagnostic> _diagnostics = [];
    private readonly PlanForms _forms;
    private PlanEntry[] _entries;
    private byte[] _overflow = [];
    private int _overflowUsed;
    private int _count;
    private int _changes;
    private bool _sorted = true;
    private bool _apart = true;
    private ulong _lastAddress;
    private uint _lastLength;

    /// <summary>Begins a plan.</summary>
    /// <param name="backend">What the sites are turned to.</param>
    /// <param name="rules">The name of the rules followed.</param>
    /// <param name="image">The image, for its bitness and the names of its segments.</param>
    /// <param name="capacity">How many sites there will be, where known.</param>
    public PlanBuilder(string backend, string rules, CodeImage image, int capacity = 0)
        : this(backend, rules, Bitness(image), SegmentsOf(image), capacity)
    {
    }

    /// <summary>Begins a plan for an image that is described, not at hand.</summary>
    /// <param name="backend">What the sites are turned to.</param>
    /// <param name="rules">The name of the rules followed.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="segments">The segments of the image.</param>
    /// <param name="capacity">How many sites there will be, where known.</param>
    public PlanBuilder(string backend, string rules, int bitness, IReadOnlyList<PlanSegment> segments, int capacity = 0)
    {
        ArgumentNullException.ThrowIfNull(segments);
        ArgumentException.ThrowIfNullOrEmpty(backend);
        ArgumentException.ThrowIfNullOrEmpty(rules);
        ArgumentOutOfRangeException.ThrowIfNegative(capacity);
        _backend = backend;
        _rules = rules;
        _bitness = bitness;
        _segments = segments;
        _forms = new PlanForms();
        _entries = GC.AllocateUninitializedArray<PlanEntry>(capacity);
    }

    /// <summary>Begins a plan of which a planner fills in the first entries by itself: one for each site of a table.</summary>
    internal PlanBuilder(string backend, string rules, CodeImage image, PlanForms forms, SiteTable sites)
        : this(backend, rules, image, sites.Count)
    {
        _forms = forms;
        _count = sites.Count;
        if (_count > 0)
        {
            PatchSite last = sites[_count - 1];
            (_lastAddress, _lastLength) = (last.Address.Value, (uint)last.Budget);
        }
    }

    /// <summary>How many sites were added.</summary>
    public int Count => _count;

    /// <summary>The plan the new one continues: its new bytes may stand at the sites, and its old bytes are the originals.</summary>
    public PatchPlan? Previous { get; init; }

    /// <summary>Where the plan logs what is done with it.</summary>
    public ILogger? Logger { get; init; }

    /// <summary>Adds a finding that is not an error.</summary>
    /// <param name="diagnostic">The finding.</param>
    public void AddDiagnostic(PatchDiagnostic diagnostic)
    {
        ArgumentNullException.ThrowIfNull(diagnostic);
        _diagnostics.Add(diagnostic);
    }

    /// <summary>Adds a decision.</summary>
    /// <param name="address">Run address of the site's first byte.</param>
    /// <param name="oldBytes">The original bytes, 1 to 254.</param>
    /// <param name="newBytes">The new bytes, as many.</param>
    /// <param name="outcome">What is done and why.</param>
    public void Add(VirtualAddress address, ReadOnlySpan<byte> oldBytes, ReadOnlySpan<byte> newBytes, PlanOutcome outcome)
    {
        if (oldBytes.Length != newBytes.Length || oldBytes.Length is 0 or > PatchSite.MaxBudget)
        {
            throw new ArgumentException(
                $"old and new bytes have one length, 1 to {PatchSite.MaxBudget}, not {oldBytes.Length} and {newBytes.Length}",
                nameof(newBytes));
        }

        Add(address, oldBytes, newBytes, OutcomeIndex(outcome));
    }

    /// <summary>Counts sites of forms that do not keep their bytes; those in the overflow are counted when they are added.</summary>
    internal void AddChanges(int count) => _changes += count;

    /// <summary>The entries so far, and room for more.</summary>
    internal PlanEntry[] Entries => _entries;

    /// <summary>As the public form, with an outcome's number and lengths that are right.</summary>
    internal void Add(VirtualAddress address, ReadOnlySpan<byte> oldBytes, ReadOnlySpan<byte> newBytes, int outcome)
    {
        if (_count >= _entries.Length)
        {
            Array.Resize(ref _entries, Math.Max(16, _count * 2));
        }

        // Before the first, address and length are 0: every site lies behind that.
        bool behind = address.Value >= _lastAddress;
        _sorted &= behind;
        _apart &= behind & (unchecked(address.Value - _lastAddress) >= _lastLength);
        _lastAddress = address.Value;
        _lastLength = (uint)oldBytes.Length;
        _entries[_count++] = Overflow(address.Value, oldBytes, newBytes, outcome);
    }

    /// <summary>An entry that keeps outcome and bytes in the overflow.</summary>
    internal PlanEntry Overflow(ulong address, ReadOnlySpan<byte> oldBytes, ReadOnlySpan<byte> newBytes, int outcome)
    {
        int offset = _overflowUsed;
        int length = oldBytes.Length;
        _overflowUsed = checked(offset + sizeof(int) + 2 * length);
        if (_overflowUsed > _overflow.Length)
        {
            Array.Resize(ref _overflow, (int)Math.Clamp(_overflowUsed * 2L, 256, Array.MaxLength));
        }

        MemoryMarshal.Write(_overflow.AsSpan(offset), outcome);
        oldBytes.CopyTo(_overflow.AsSpan(offset + sizeof(int)));
        newBytes.CopyTo(_overflow.AsSpan(offset + sizeof(int) + length));
        _changes += oldBytes.SequenceEqual(newBytes) ? 0 : 1;
        return PlanEntry.InOverflow(address, length, offset);
    }

    /// <summary>Makes the plan.</summary>
    /// <returns>The plan, its sites in order of address.</returns>
    /// <exception cref="PatchException">Two sites share bytes (PV1003, PV1004).</exception>
    public PatchPlan Build()
    {
        Array.Resize(ref _entries, _count);
        if (!_sorted)
        {
            Array.Sort(_entries, static (a, b) => a.Address.CompareTo(b.Address));
        }

        // Sites that came in order, each behind the one before, share no byte.
        for (int i = 1; i < _count && !_apart; i++)
        {
            ref readonly PlanEntry before = ref _entries[i - 1];
            ref readonly PlanEntry entry = ref _entries[i];
            if (entry.Address - before.Address < (ulong)LengthOf(before))
            {
                bool same = entry.Address == before.Address;
                throw new PatchException(PatchDiagnostic.Error(
                    same ? DiagnosticCodes.SiteDuplicate : DiagnosticCodes.SiteOverlap, "two planned sites share bytes") with
                {
                    SiteIndex = i,
                    Address = entry.Address,
                    Found =
                        $"{new VirtualAddress(before.Address)}+{LengthOf(before)} and "
                        + $"{new VirtualAddress(entry.Address)}+{LengthOf(entry)}",
                });
            }
        }

        Array.Resize(ref _overflow, _overflowUsed);
        return new PatchPlan(_entries, _forms, _overflow, Logger)
        {
            Backend = _backend,
            Rules = _rules,
            Bitness = _bitness,
            ChangeCount = _changes,
            Segments = _segments is PlanSegment[] owned ? Array.AsReadOnly(owned) : _segments,
            Diagnostics = _diagnostics.AsReadOnly(),
            Previous = Previous?.WithAncestors(PatchPlan.RememberedAncestors - 1),
        };
    }

    /// <summary>The number under which entries refer to an outcome.</summary>
    internal int OutcomeIndex(PlanOutcome outcome) => _forms.OutcomeIndex(outcome);

    private int LengthOf(in PlanEntry entry) => entry.IsOverflow ? entry.OverflowLength : _forms.Olds[entry.Old].Length;

    private static PlanSegment[] SegmentsOf(CodeImage image) =>
        [.. image.Segments.Select(static s => new PlanSegment(s.Name, s.Address, s.Bytes.Length))];

    private static int Bitness(CodeImage image)
    {
        ArgumentNullException.ThrowIfNull(image);
        return image.Bitness;
    }
}

/// <summary>A segment of the image a plan was made for: what names the section of each site.</summary>
public readonly record struct PlanSegment
{
    internal PlanSegment(string name, VirtualAddress address, long length)
    {
        Name = name;
        Address = address;
        Length = length;
    }

    /// <summary>The segment's name.</summary>
    public string Name { get; }

    /// <summary>Run address of its first byte.</summary>
    public VirtualAddress Address { get; }

    /// <summary>Its length in bytes.</summary>
    public long Length { get; }

    internal bool Contains(VirtualAddress address) => address >= Address && address.Value - Address.Value < (ulong)Length;
}
