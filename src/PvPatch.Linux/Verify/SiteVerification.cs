using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>What stands at a site in memory.</summary>
public enum MemorySiteState
{
    /// <summary>The bytes of at least one candidate.</summary>
    Patched,

    /// <summary>The original bytes, which no candidate leaves there.</summary>
    Original,

    /// <summary>
    /// Unknown bytes, in memory that the kernel gave away at the end of its start. See <see cref="KernelVerifier"/> for the rule.
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

    /// <summary>What the first candidate that knows the site says of it: label, section, original bytes.</summary>
    public SiteDecision Decision { get; }

    /// <summary>The site's address by the image file (KASLR not included).</summary>
    public VirtualAddress Address => Decision.Address;

    /// <summary>What stands there.</summary>
    public MemorySiteState State { get; internal set; }

    /// <summary>Whether the original bytes stand there (moved by KASLR); a candidate may leave them there too.</summary>
    public bool IsOriginal { get; internal init; }

    /// <summary>The bytes found; none where the site can't be read.</summary>
    public ReadOnlyMemory<byte> Found { get; internal init; }

    /// <summary>Whether a candidate's bytes stand there.</summary>
    /// <param name="candidate">The candidate's index in the list that was verified.</param>
    /// <returns>Whether they do.</returns>
    public bool Matches(int candidate)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(candidate);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(candidate, _candidates.Count);
        return (_matches >> candidate & 1) != 0;
    }

    /// <summary>The names of the backends whose bytes stand there.</summary>
    public IEnumerable<string> Backends => _candidates.Where((_, i) => Matches(i)).Select(static p => p.Backend).Distinct();

    internal bool IsKnown => _matches != 0 || IsOriginal;

    internal List<AllowedBytes> Allowed(long slide, int bitness) => AllowedSite.Collect(_candidates, Decision, slide, bitness);

    /// <summary>What may stand there, by text: <c>ff 15 .. (original), e8 .. 90 (native, kvm)</c>.</summary>
    internal string Expected(long slide, int bitness) =>
        string.Join(", ", Allowed(slide, bitness).Select(static a => $"{HexBytes.Format(a.Bytes.Span)} ({string.Join(", ", a.Of)})"));
}
