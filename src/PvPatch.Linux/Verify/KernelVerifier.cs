using PvPatch.Linux.Dumps;
using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>
/// Compares a kernel's memory with what it would hold at its paravirt sites on each of several backends. Only sites are compared: what a
/// running system changes elsewhere in its code (ftrace, probes, jump labels) is not looked at.
/// </summary>
/// <remarks>
/// <para>Freed memory. The sections <c>.init.*</c>, <c>.exit.text</c> and <c>.altinstr_aux</c> are filled with 0xcc and given away when the
/// kernel is up. A site in them that holds unknown bytes is <see cref="SiteState.Freed"/>, not tampered, where all its bytes are
/// 0xcc, or where fewer than half of the sites in such sections that can be read hold known bytes: these sections are freed in one go, so
/// memory dumped earlier holds known bytes at nearly all of them.</para>
/// <para>KASLR. Original bytes with an absolute address are compared with the slide added to it; everything else in a site does not
/// depend on where the kernel is.</para>
/// </remarks>
public static class KernelVerifier
{
    /// <summary>The most candidates that can be compared at once.</summary>
    public const int MaxCandidates = 64;

    private const byte FreedFill = 0xcc; // POISON_FREE_INITMEM

    /// <summary>Compares memory with plans for the kernel it holds.</summary>
    /// <param name="candidates">One plan for each backend (and variant of it) the machine may have run on, all of one image; 1 to <see cref="MaxCandidates"/>.</param>
    /// <param name="memory">The kernel's memory.</param>
    /// <returns>What stands at each site, and which backend accounts for it best.</returns>
    public static MemoryVerification Verify(IReadOnlyList<PatchPlan> candidates, KernelMemory memory)
    {
        ArgumentNullException.ThrowIfNull(candidates);
        ArgumentNullException.ThrowIfNull(memory);
        if (candidates.Count is 0 or > MaxCandidates)
        {
            throw new ArgumentException($"1 to {MaxCandidates} candidates can be compared, not {candidates.Count}", nameof(candidates));
        }

        var sites = new List<SiteVerification>(candidates[0].Count);
        Span<byte> buffer = stackalloc byte[256];
        foreach (int[] indices in PlanSites.Walk(candidates))
        {
            int first = Array.FindIndex(indices, static i => i >= 0);
            SiteDecision decision = candidates[first][indices[first]];
            sites.Add(Compare(candidates, indices, decision, memory, buffer[..decision.Length]));
        }

        FindFreed(sites);
        return new MemoryVerification(candidates, memory, sites);
    }

    private static SiteVerification Compare(IReadOnlyList<PatchPlan> candidates, int[] indices, SiteDecision decision, KernelMemory memory, Span<byte> found)
    {
        if (!memory.TryRead(decision.Address, found))
        {
            return new SiteVerification(candidates, decision, 0) { State = SiteState.Unreadable };
        }

        Span<byte> original = stackalloc byte[256];
        original = original[..decision.Length];
        decision.OldBytes.CopyTo(original);
        AbsoluteOperand.Relocate(original, memory.Bitness, memory.Slide ?? 0);
        bool isOriginal = found.SequenceEqual(original);
        ulong matches = 0;
        for (int i = 0; i < indices.Length; i++)
        {
            if (indices[i] >= 0)
            {
                SiteDecision candidate = candidates[i][indices[i]];
                bool leavesOriginal = candidate.NewBytes.SequenceEqual(decision.OldBytes);
                matches |= leavesOriginal ? (isOriginal ? 1UL << i : 0) : found.SequenceEqual(candidate.NewBytes) ? 1UL << i : 0;
            }
        }

        return new SiteVerification(candidates, decision, matches)
        {
            State = matches != 0 ? SiteState.Patched : isOriginal ? SiteState.Original : SiteState.Tampered,
            IsOriginal = isOriginal,
            Found = found.ToArray(),
        };
    }

    private static void FindFreed(List<SiteVerification> sites)
    {
        List<SiteVerification> init = [.. sites.Where(static s => s.State != SiteState.Unreadable && InitAreas.IsFreed(s.Decision.Section))];
        bool isFreed = init.Count(static s => s.IsKnown) * 2 < init.Count;
        foreach (SiteVerification site in init)
        {
            if (!site.IsKnown && (isFreed || !site.Found.Span.ContainsAnyExcept(FreedFill)))
            {
                site.State = SiteState.Freed;
            }
        }
    }
}
