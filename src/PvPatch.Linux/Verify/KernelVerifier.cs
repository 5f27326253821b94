using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Dumps;
using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>
/// Compares the bytes at the paravirt sites of a kernel in memory with those of each of several backends. Only sites are compared: what a
/// running system changes elsewhere in its code (ftrace, probes, jump labels) is not looked at.
/// </summary>
/// <remarks>
/// <para>Freed memory. The sections <c>.init.*</c>, <c>.exit.text</c> and <c>.altinstr_aux</c> are filled with 0xcc and given away when the
/// kernel is up. A site in them that holds unknown bytes is <see cref="MemorySiteState.Freed"/>, not tampered, where all its bytes are
/// 0xcc, or where fewer than half of the sites in such sections that can be read hold known bytes: these sections are freed in one go, so
/// memory dumped earlier holds known bytes at nearly all of them.</para>
/// <para>KASLR. Original bytes with an absolute address are compared with the slide added to it; everything else in a site does not
/// depend on where the kernel is.</para>
/// </remarks>
public static class KernelVerifier
{
    /// <summary>The most candidates that can be compared at once: a bit each in a site's matches.</summary>
    internal const int MaxCandidates = 64;

    private const byte FreedFill = 0xcc; // POISON_FREE_INITMEM

    /// <summary>
    /// Finds a kernel in memory and compares its sites with those of every machine it may have booted on. Where the memory holds bytes of
    /// several machines, rarer ones are tried too.
    /// </summary>
    /// <param name="image">The kernel, as built.</param>
    /// <param name="file">The memory.</param>
    /// <param name="verification">The state of each site, and the machine that accounts for most of them.</param>
    /// <param name="diagnostics">
    /// Why there is no result: the kernel is not in the memory (PV6128 and other codes of the locator), or a backend cannot be planned.
    /// </param>
    /// <param name="known">Known facts of the machine; <see langword="null"/> for none.</param>
    /// <param name="backends">
    /// The backends to compare with, in order of preference for equal results; <see langword="null"/> for those of the image.
    /// </param>
    /// <param name="name">Names a machine for reports; <see langword="null"/> for the library's own names.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether there is a result.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryVerify(
        KernelImage image,
        MemoryFile file,
        [NotNullWhen(true)] out MemoryVerification? verification,
        out IReadOnlyList<PatchDiagnostic> diagnostics,
        KnownMachine? known = null,
        IEnumerable<string>? backends = null,
        Func<BootMachine, string>? name = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(file);
        verification = null;
        known ??= new KnownMachine();
        if (!BootCandidates.TryCreate(image, out BootCandidates? candidates, out diagnostics, known, backends, name))
        {
            return false;
        }

        cancellationToken.ThrowIfCancellationRequested();
        if (!KernelMemoryLocator.TryLocate(image.Elf, file, out KernelMemory? memory, out PatchDiagnostic? error))
        {
            diagnostics = [.. file.Warnings.Prepend(error).Select(d => d with { Source = d.Source ?? file.Path })];
            return false;
        }

        cancellationToken.ThrowIfCancellationRequested();
        MemoryVerification result = Compare(candidates, memory, candidates.Diagnostics);
        if (!candidates.TryRefine(known, result, out BootCandidates? refined, out diagnostics))
        {
            return false;
        }

        verification = refined is null ? result : Compare(refined, memory, [.. candidates.Diagnostics, .. refined.Diagnostics]);
        return true;
    }

    /// <summary>
    /// Finds a kernel in memory and compares its sites with those of every machine it may have booted on; see the form with <c>Try</c>.
    /// </summary>
    /// <param name="image">The kernel, as built.</param>
    /// <param name="file">The memory.</param>
    /// <param name="known">Known facts of the machine; <see langword="null"/> for none.</param>
    /// <param name="backends">The backends to compare with; <see langword="null"/> for those of the image.</param>
    /// <param name="name">Names a machine for reports; <see langword="null"/> for the library's own names.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The state of each site, and the machine that accounts for most of them.</returns>
    /// <exception cref="PatchException">No result; the exception has the first error.</exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static MemoryVerification Verify(
        KernelImage image,
        MemoryFile file,
        KnownMachine? known = null,
        IEnumerable<string>? backends = null,
        Func<BootMachine, string>? name = null,
        CancellationToken cancellationToken = default) =>
        TryVerify(image, file, out MemoryVerification? verification, out IReadOnlyList<PatchDiagnostic> diagnostics, known, backends, name,
            cancellationToken)
            ? verification
            : throw new PatchException(KernelPlanner.FirstError(diagnostics));

    /// <summary>Compares memory with plans; the machines are known by the plans' names only.</summary>
    internal static MemoryVerification Compare(IReadOnlyList<PatchPlan> plans, KernelMemory memory) =>
        Compare([.. plans.Select(static p => new BootCandidate(new BootMachine { Backend = p.Backend }, p))], memory);

    /// <summary>Compares memory with plans for the kernel it holds.</summary>
    /// <param name="machines">
    /// The machines it may have booted on, with their plans, all of one image; 1 to <see cref="MaxCandidates"/>.
    /// </param>
    /// <param name="memory">The kernel's memory.</param>
    /// <param name="leftOut">Diagnostics about machines that are not among them.</param>
    /// <returns>The state of each site, and the machine that accounts for most of them.</returns>
    internal static MemoryVerification Compare(
        IReadOnlyList<BootCandidate> machines, KernelMemory memory, IReadOnlyList<PatchDiagnostic>? leftOut = null)
    {
        PatchPlan[] candidates = [.. machines.Select(static m => m.Plan)];
        if (candidates.Length is 0 or > MaxCandidates)
        {
            throw new ArgumentException($"1 to {MaxCandidates} candidates can be compared, not {candidates.Length}", nameof(machines));
        }

        var sites = new List<SiteVerification>(candidates[0].Count);
        Span<byte> buffer = stackalloc byte[256];
        foreach (int[] indices in PlanDiff.Walk(candidates))
        {
            int first = Array.FindIndex(indices, static i => i >= 0);
            SiteDecision decision = candidates[first][indices[first]];
            sites.Add(Compare(candidates, indices, decision, memory, buffer[..decision.Length]));
        }

        FindFreed(sites);
        return new MemoryVerification(machines, memory, sites, leftOut);
    }

    private static SiteVerification Compare(
        PatchPlan[] candidates, int[] indices, SiteDecision decision, KernelMemory memory, Span<byte> found)
    {
        if (!memory.TryRead(decision.Address, found))
        {
            return new SiteVerification(candidates, decision, 0) { State = MemorySiteState.Unreadable };
        }

        Span<byte> original = stackalloc byte[256];
        original = original[..decision.Length];
        decision.OldBytes.CopyTo(original);
        SiteFormReader.Relocate(original, memory.Bitness, memory.Slide ?? 0);
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
            State = matches != 0 ? MemorySiteState.Patched : isOriginal ? MemorySiteState.Original : MemorySiteState.Tampered,
            IsOriginal = isOriginal,
            Found = found.ToArray(),
        };
    }

    private static void FindFreed(List<SiteVerification> sites)
    {
        List<SiteVerification> init = [
            .. sites.Where(static s => s.State != MemorySiteState.Unreadable && InitAreas.IsFreed(s.Decision.Section))];
        bool isFreed = init.Count(static s => s.IsKnown) * 2 < init.Count;
        foreach (SiteVerification site in init)
        {
            if (!site.IsKnown && (isFreed || !site.Found.Span.ContainsAnyExcept(FreedFill)))
            {
                site.State = MemorySiteState.Freed;
            }
        }
    }
}
