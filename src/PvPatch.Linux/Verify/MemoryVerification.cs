using PvPatch.Linux.Dumps;
using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>State of a kernel's memory.</summary>
public enum MemoryState
{
    /// <summary>Every site compared holds the bytes of one backend.</summary>
    Patched,

    /// <summary>Every site compared holds its original bytes: the dump was taken before the kernel patched itself.</summary>
    NotPatched,

    /// <summary>
    /// Every site compared holds known bytes, but not all of one backend: in the midst of patching, or changed afterwards.
    /// </summary>
    Mixed,

    /// <summary>At least one site holds bytes that neither the image nor a candidate accounts for.</summary>
    Tampered,

    /// <summary>Most sites hold unknown bytes: the memory is of another kernel, or of a backend that is not among the candidates.</summary>
    NotThisKernel,

    /// <summary>No site could be compared.</summary>
    NothingCompared,
}

/// <summary>A candidate and the number of sites that hold its bytes.</summary>
public sealed class CandidateMatch
{
    internal CandidateMatch(int index, BootCandidate candidate, int matched)
    {
        Index = index;
        Machine = candidate.Machine;
        Plan = candidate.Plan;
        Matched = matched;
    }

    /// <summary>Index in <see cref="MemoryVerification.Candidates"/>.</summary>
    public int Index { get; }

    /// <summary>The machine.</summary>
    public BootMachine Machine { get; }

    /// <summary>The plan of the bytes on that machine.</summary>
    public PatchPlan Plan { get; }

    /// <summary>Number of the sites compared that hold the plan's bytes.</summary>
    public int Matched { get; }

    /// <summary>The candidate's name: the plan's, which tells candidates of one backend apart.</summary>
    public string Backend => Plan.Backend;
}

/// <summary>
/// Result of the comparison of a kernel's sites in memory with candidates: the state of each site, and the backend the kernel ran on. Made
/// by <see cref="KernelVerifier"/>.
/// </summary>
public sealed class MemoryVerification
{
    // Below this many sites, most of them being unknown says nothing about the kernel.
    private const int FewestForKernel = 8;

    internal MemoryVerification(
        IReadOnlyList<BootCandidate> candidates, KernelMemory memory, List<SiteVerification> sites,
        IReadOnlyList<PatchDiagnostic>? leftOut = null)
    {
        Memory = memory;
        LeftOut = leftOut ?? [];
        Sites = sites.AsReadOnly();
        List<SiteVerification> compared = [
            .. sites.Where(static s => s.State is MemorySiteState.Patched or MemorySiteState.Original or MemorySiteState.Tampered)];
        Compared = compared.Count;
        Candidates = [.. candidates.Select((candidate, i) => new CandidateMatch(i, candidate, compared.Count(s => s.Matches(i))))];
        Best = Candidates.MaxBy(static c => c.Matched)!;
        Tied = [.. Candidates.Where(c => c.Matched == Best.Matched && c != Best)];
        State = StateOf(compared);
    }

    /// <summary>The state of the memory as a whole.</summary>
    public MemoryState State { get; }

    /// <summary>The memory.</summary>
    public KernelMemory Memory { get; }

    /// <summary>All sites in order of address.</summary>
    public IReadOnlyList<SiteVerification> Sites { get; }

    /// <summary>The candidates in the order given.</summary>
    public IReadOnlyList<CandidateMatch> Candidates { get; }

    /// <summary>
    /// The candidate that accounts for the most sites; of several, the first. Without meaning where the state is
    /// <see cref="MemoryState.NotPatched"/>.
    /// </summary>
    public CandidateMatch Best { get; }

    /// <summary>The other candidates that account for as many sites as the best one.</summary>
    public IReadOnlyList<CandidateMatch> Tied { get; }

    /// <summary>Number of the sites compared: all but those that can't be read or are freed.</summary>
    public int Compared { get; }

    /// <summary>
    /// Number of sites that the memory does not hold though a running kernel keeps them. Sites in sections that are freed after the start
    /// do not count.
    /// </summary>
    public int Missing => Sites.Count(static s => s.State == MemorySiteState.Unreadable && !InitAreas.IsFreed(s.Decision.Section));

    /// <summary>
    /// Whether the memory holds every site that a running kernel keeps, so that <see cref="State"/> is true of the whole kernel.
    /// </summary>
    public bool IsComplete => Missing == 0;

    /// <summary>
    /// Whether every site compared holds the bytes of the best candidate. Sites that were not compared do not count; see
    /// <see cref="IsComplete"/>.
    /// </summary>
    public bool IsPatched => State == MemoryState.Patched;

    /// <summary>Candidates that were not compared with (PV6148); none where all were.</summary>
    internal IReadOnlyList<PatchDiagnostic> LeftOut { get; }

    /// <summary>Counts the sites in a state.</summary>
    /// <param name="state">The state.</param>
    /// <returns>The number.</returns>
    public int Count(MemorySiteState state) => Sites.Count(s => s.State == state);

    /// <summary>The sites with known bytes that are not those of the best candidate: originals, or another backend's.</summary>
    /// <returns>The sites; all of them where nothing is patched.</returns>
    public IEnumerable<SiteVerification> MixedSites() =>
        Sites.Where(s => s.State is MemorySiteState.Patched or MemorySiteState.Original && !s.Matches(Best.Index));

    /// <summary>All allowed bytes of a site in this memory, with addresses in originals moved by the KASLR slide.</summary>
    /// <param name="site">One of <see cref="Sites"/>.</param>
    /// <returns>
    /// Each byte string once, with the names of the candidates that put it there: the original first, then in the order of the candidates.
    /// </returns>
    public IReadOnlyList<AllowedBytes> AllowedAt(SiteVerification site)
    {
        ArgumentNullException.ThrowIfNull(site);
        return site.Allowed(Memory.Slide ?? 0, Memory.Bitness);
    }

    /// <summary>The findings as diagnostics: first those of the memory as a whole, then those of single sites.</summary>
    /// <param name="maxSites">The largest number of sites with a diagnostic each; with 0 sites are only counted.</param>
    /// <returns>None where every site was compared with every candidate and holds the bytes of one backend.</returns>
    public IReadOnlyList<PatchDiagnostic> ToDiagnostics(int maxSites = 100) => new VerificationReport(this).Diagnostics(maxSites);

    /// <summary>
    /// Writes the result as one JSON object of the format <c>pvpatch-verification</c>. Sites without a finding are counted, not listed.
    /// </summary>
    /// <param name="json">The writer. It is not flushed.</param>
    public void WriteTo(System.Text.Json.Utf8JsonWriter json) => MemoryVerificationJson.Write(this, json);

    private MemoryState StateOf(List<SiteVerification> compared)
    {
        int tampered = compared.Count(static s => s.State == MemorySiteState.Tampered);
        if (compared.Count == 0)
        {
            return MemoryState.NothingCompared;
        }

        if (tampered > 0)
        {
            return compared.Count >= FewestForKernel && tampered * 2 > compared.Count ? MemoryState.NotThisKernel : MemoryState.Tampered;
        }

        return Best.Matched == compared.Count ? MemoryState.Patched
            : compared.TrueForAll(static s => s.IsOriginal) ? MemoryState.NotPatched
            : MemoryState.Mixed;
    }
}
