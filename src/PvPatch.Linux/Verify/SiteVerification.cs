using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>State of a site in memory.</summary>
public enum MemorySiteState
{
    /// <summary>The bytes of at least one candidate.</summary>
    Patched,

    /// <summary>The original bytes, which no candidate leaves there.</summary>
    Original,

    /// <summary>
    /// Unknown bytes in memory that the kernel frees at the end of its start. See <see cref="KernelVerifier"/> for the rule.
    /// </summary>
    Freed,

    /// <summary>The memory file does not hold the site, or not all of it.</summary>
    Unreadable,

    /// <summary>Bytes that are neither original nor any candidate's.</summary>
    Tampered,
}

/// <summary>One site compared with memory.</summary>
public sealed class SiteVerification
{
    private readonly IReadOnlyList<PatchPlan> _candidates;
    private readonly ulong _matches;

    internal SiteVerification(IReadOnlyList<PatchPlan> candidates, SiteDecision decision, ulong matches)
    {
        _candidates = candidates;
        Decision = decision;
        _matches = matches;
    }

    /// <summary>The site in the plan of the first candidate that has it: label, section, original bytes.</summary>
    public SiteDecision Decision { get; }

    /// <summary>The link address of the site (KASLR not included).</summary>
    public VirtualAddress Address => Decision.Address;

    /// <summary>The state of the site.</summary>
    public MemorySiteState State { get; internal set; }

    /// <summary>Whether the site holds its original bytes (moved by KASLR); a candidate may leave them there too.</summary>
    public bool IsOriginal { get; internal init; }

    /// <summary>The bytes found; empty for a site that can't be read.</summary>
    public ReadOnlyMemory<byte> Found { get; internal init; }

    /// <summary>Whether the site holds a candidate's bytes.</summary>
    /// <param name="candidate">The candidate's index in the list that was verified.</param>
    /// <returns>Whether it does.</returns>
    public bool Matches(int candidate)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(candidate);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(candidate, _candidates.Count);
        return (_matches >> candidate & 1) != 0;
    }

    /// <summary>Names of the backends whose bytes the site holds.</summary>
    public IEnumerable<string> Backends => _candidates.Where((_, i) => Matches(i)).Select(static p => p.Backend).Distinct();

    internal bool IsKnown => _matches != 0 || IsOriginal;

    internal List<AllowedBytes> Allowed(long slide, int bitness) => AllowedSite.Collect(_candidates, Decision, slide, bitness);

    /// <summary>The allowed bytes as text: <c>ff 15 .. (original), e8 .. 90 (native, kvm)</c>.</summary>
    internal string Expected(long slide, int bitness) =>
        string.Join(", ", Allowed(slide, bitness).Select(static a => $"{HexBytes.Format(a.Bytes.Span)} ({string.Join(", ", a.Of)})"));
}
