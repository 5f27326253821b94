using System.Collections;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Linux.Verify;

/// <summary>A machine that a kernel may have booted on, and the plan of the bytes at its sites there.</summary>
public sealed class BootCandidate
{
    internal BootCandidate(BootMachine machine, PatchPlan plan)
    {
        Machine = machine;
        Plan = plan;
    }

    /// <summary>The machine.</summary>
    public BootMachine Machine { get; }

    /// <summary>The plan; its <see cref="PatchPlan.Backend"/> is the candidate's name.</summary>
    public PatchPlan Plan { get; }
}

/// <summary>
/// The machines that a kernel may have booted on as far as its sites tell them apart: of each backend one candidate for each set of bytes
/// that a combination of unknown facts leaves there.
/// </summary>
public sealed class BootCandidates : IReadOnlyList<BootCandidate>
{
    private static readonly KernelPlanner s_planner = new();

    private readonly List<BootCandidate> _all = [];
    private readonly KernelImage _image;
    private readonly Func<BootMachine, string> _name;
    private readonly KnownMachine _known;
    private readonly int _most;
    private readonly SortedSet<string> _openFacts = new(StringComparer.Ordinal);

    private BootCandidates(KernelImage image, KnownMachine known, Func<BootMachine, string>? name, int most)
    {
        _image = image;
        _known = known;
        _most = most;
        _name = name ?? (machine => Describe(machine, known.ToMachine(machine.Backend)));
    }

    /// <inheritdoc/>
    public int Count => _all.Count;

    /// <inheritdoc/>
    public BootCandidate this[int index] => _all[index];

    /// <summary>The candidates' plans, in the same order.</summary>
    public IReadOnlyList<PatchPlan> Plans => [.. _all.Select(static c => c.Plan)];

    /// <summary>
    /// Number of machines that were not planned, as there are more than <see cref="KernelVerifier"/> compares at once. Bytes that only
    /// these machines leave at a site count as unknown.
    /// </summary>
    public int NotPlanned { get; private set; }

    /// <summary>A warning with the facts that would narrow them down where machines were not planned (PV6148); else none.</summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics => NotPlanned == 0 ? [] : [
        PatchDiagnostic.Warning(
            KernelDiagnosticCodes.CandidatesLeftOut, "not all machines that the kernel may have booted on were looked at") with
        {
            Found = string.Create(CultureInfo.InvariantCulture, $"{NotPlanned} more settings than the {Count} candidates stand for"),
            Expected = string.Create(CultureInfo.InvariantCulture, $"at most {_most} candidates"),
            Help =
                $"Bytes that only they leave at a site count as unknown. Name the backend, or say what is known of the machine: "
                + $"{string.Join(", ", _openFacts)}.",
        }];

    /// <summary>Plans a kernel for the machines it may have booted on.</summary>
    /// <param name="image">The kernel.</param>
    /// <param name="candidates">The candidates, by backend in the order given; of one backend the likely machine first.</param>
    /// <param name="diagnostics">
    /// Why there are none: what <see cref="KernelPlanner"/> says of a backend. Where there are, a warning if machines were left out
    /// (PV6148).
    /// </param>
    /// <param name="known">Known facts of the machine; <see langword="null"/> for none.</param>
    /// <param name="backends">The backends; <see langword="null"/> for those of the image.</param>
    /// <param name="name">Names a machine for reports; <see langword="null"/> for the library's own names.</param>
    /// <returns>Whether every backend can be planned.</returns>
    public static bool TryCreate(
        KernelImage image,
        [NotNullWhen(true)] out BootCandidates? candidates,
        out IReadOnlyList<PatchDiagnostic> diagnostics,
        KnownMachine? known = null,
        IEnumerable<string>? backends = null,
        Func<BootMachine, string>? name = null) =>
        TryCreate(image, out candidates, out diagnostics, known, backends, name, KernelVerifier.MaxCandidates);

    /// <summary>The same, of at most a number of candidates.</summary>
    internal static bool TryCreate(
        KernelImage image,
        [NotNullWhen(true)] out BootCandidates? candidates,
        out IReadOnlyList<PatchDiagnostic> diagnostics,
        KnownMachine? known,
        IEnumerable<string>? backends,
        Func<BootMachine, string>? name,
        int most)
    {
        ArgumentNullException.ThrowIfNull(image);
        known ??= new KnownMachine();
        var made = new BootCandidates(image, known, name, most);
        candidates = null;
        diagnostics = [];
        foreach (string backend in (backends ?? image.BackendNames).Distinct())
        {
            if (!made.TryAdd(known.Variants(image, backend), made.Count, out diagnostics))
            {
                return false;
            }
        }

        candidates = made;
        diagnostics = made.Diagnostics;
        return true;
    }

    /// <summary>Plans a kernel for the machines it may have booted on.</summary>
    /// <param name="image">The kernel.</param>
    /// <param name="known">Known facts of the machine; <see langword="null"/> for none.</param>
    /// <param name="backends">The backends; <see langword="null"/> for those of the image.</param>
    /// <param name="name">Names a machine for reports; <see langword="null"/> for the library's own names.</param>
    /// <returns>The candidates.</returns>
    /// <exception cref="PatchException">A backend cannot be planned.</exception>
    public static BootCandidates Create(
        KernelImage image, KnownMachine? known = null, IEnumerable<string>? backends = null, Func<BootMachine, string>? name = null) =>
        TryCreate(image, out BootCandidates? candidates, out IReadOnlyList<PatchDiagnostic> diagnostics, known, backends, name)
            ? candidates
            : throw new PatchException(KernelPlanner.FirstError(diagnostics));

    /// <summary>The candidates less those that leave the same bytes at some sites as an earlier one of the same backend.</summary>
    /// <param name="sites">The addresses of the sites.</param>
    /// <returns>The candidates that are left, in the same order.</returns>
    public IReadOnlyList<BootCandidate> DifferingAt(IReadOnlyList<VirtualAddress> sites)
    {
        ArgumentNullException.ThrowIfNull(sites);
        var kept = new List<BootCandidate>();
        foreach (BootCandidate candidate in _all)
        {
            if (!kept.Exists(k => k.Machine.Backend == candidate.Machine.Backend
                && sites.All(a => NewBytes(k.Plan, a).SequenceEqual(NewBytes(candidate.Plan, a)))))
            {
                kept.Add(candidate);
            }
        }

        return kept.AsReadOnly();
    }

    /// <inheritdoc/>
    public IEnumerator<BootCandidate> GetEnumerator() => _all.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>
    /// The candidates to compare once more with, where memory holds bytes of more than one: the best ones so far, and KVM with each set of
    /// features that a host may leave out. Rare hosts are without a feature or two; planning all sets for every dump would take longer than
    /// all else.
    /// </summary>
    /// <param name="known">Known facts of the machine.</param>
    /// <param name="result">What the comparison with these candidates gave.</param>
    /// <param name="refined">The candidates; <see langword="null"/> where nothing more can be tried.</param>
    /// <param name="diagnostics">The reasons where one of them cannot be planned.</param>
    /// <returns>Whether nothing failed.</returns>
    internal bool TryRefine(
        KnownMachine known, MemoryVerification result, out BootCandidates? refined, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        refined = null;
        diagnostics = [];
        CandidateMatch? kvm = result.Candidates.Where(static c => c.Machine.Backend == KvmBackend.Name).MaxBy(static c => c.Matched);
        if (known.KvmFeatures is not null || kvm is null || result.State is not (MemoryState.Mixed or MemoryState.Tampered)
            || !result.MixedSites().Any())
        {
            return true;
        }

        var best = new BootCandidates(_image, known, _name, _most);
        foreach (IGrouping<string, CandidateMatch> backend in result.Candidates.GroupBy(static c => c.Machine.Backend))
        {
            int most = backend.Max(static c => c.Matched);
            best._all.AddRange(backend.Where(c => c.Matched == most).Select(c => this[c.Index]));
        }

        if (!best.TryAdd(KnownMachine.FeatureSets(kvm.Machine), 0, out diagnostics))
        {
            return false;
        }

        refined = best;
        return true;
    }

    /// <param name="machines">The machines, all of one backend.</param>
    /// <param name="first">The first candidate whose bytes another one must not have too.</param>
    /// <param name="diagnostics">The reasons where one of them cannot be planned.</param>
    private bool TryAdd(IEnumerable<BootMachine> machines, int first, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        diagnostics = [];
        var planned = new List<(Backend Backend, Machine.NopStyle Nops)>();
        foreach (BootMachine machine in machines)
        {
            if (!KernelBackends.TryCreate(_image, machine, out Backend? slots, out PatchDiagnostic? error))
            {
                diagnostics = [error];
                return false;
            }

            // Most facts change no slot of a kernel, and planning takes longer than to see that.
            if (planned.Exists(p => p.Nops == machine.Nops && HoldTheSame(p.Backend, slots)))
            {
                continue;
            }

            planned.Add((slots, machine.Nops));
            if (Count >= _most)
            {
                NotPlanned++;
                _openFacts.UnionWith(Differences(machine, _known.ToMachine(machine.Backend)).Select(static d => d.Fact));
                continue;
            }

            if (!s_planner.TryPlan(_image, machine, slots, out PatchPlan? plan, out diagnostics))
            {
                return false;
            }

            if (!_all.Skip(first).Any(c => HaveSameBytes(c.Plan, plan)))
            {
                _all.Add(new BootCandidate(machine, plan.Named(_name(machine))));
            }
        }

        diagnostics = [];
        return true;
    }

    /// <summary>The name of a machine for reports: its backend, and the facts that differ from the usual ones.</summary>
    private static string Describe(BootMachine machine, BootMachine usual) =>
        string.Join(", ", Differences(machine, usual).Select(static d => d.Value).Prepend(machine.Backend));

    /// <summary>The facts of a machine that differ from the usual ones: name and value of each.</summary>
    private static IEnumerable<(string Fact, string Value)> Differences(BootMachine machine, BootMachine usual)
    {
        if (machine.OfferedKvmFeatures != usual.OfferedKvmFeatures)
        {
            yield return ("the KVM features", Bits("KVM features", (uint)machine.OfferedKvmFeatures));
        }

        if (machine.HyperVFeatures != usual.HyperVFeatures)
        {
            yield return ("the Hyper-V features", Bits("Hyper-V features", (uint)machine.HyperVFeatures));
        }

        if (machine.HyperVHints != usual.HyperVHints)
        {
            yield return ("the Hyper-V hints", Bits("Hyper-V hints", (uint)machine.HyperVHints));
        }

        if (machine.VmwareClock != usual.VmwareClock)
        {
            yield return ("the VMware clock", $"VMware clock {machine.VmwareClock}");
        }

        if (machine.Cpus != usual.Cpus)
        {
            yield return ("the number of CPUs", string.Create(CultureInfo.InvariantCulture, $"{machine.Cpus} CPUs"));
        }

        if (machine.NoPvSpin != usual.NoPvSpin)
        {
            yield return ("nopvspin", "without PV spinlocks");
        }

        if (machine.HasMwait != usual.HasMwait)
        {
            yield return ("MWAIT", "with MWAIT");
        }

        if (machine.HasLkgs != usual.HasLkgs)
        {
            yield return ("LKGS", "with LKGS");
        }

        if (machine.Nops != usual.Nops)
        {
            yield return ("the CPU's nops", $"nops {machine.Nops}");
        }
    }

    private static string Bits(string name, uint bits) => string.Create(CultureInfo.InvariantCulture, $"{name} 0x{bits:x}");

    private static bool HoldTheSame(Backend a, Backend b)
    {
        for (int i = 0; i < a.Layout.Count; i++)
        {
            if (a[i] != b[i])
            {
                return false;
            }
        }

        return true;
    }

    private static ReadOnlySpan<byte> NewBytes(PatchPlan plan, VirtualAddress address) => plan[plan.IndexContaining(address)].NewBytes;

    private static bool HaveSameBytes(PatchPlan a, PatchPlan b)
    {
        if (a.Count != b.Count)
        {
            return false;
        }

        for (int i = 0; i < a.Count; i++)
        {
            if (a[i].Address != b[i].Address || !a[i].NewBytes.SequenceEqual(b[i].NewBytes))
            {
                return false;
            }
        }

        return true;
    }
}
