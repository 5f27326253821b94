using PvPatch.Linux;
using PvPatch.Linux.Verify;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Tool.Kernels;

/// <summary>The plans of everything a kernel may have booted on.</summary>
internal sealed class Candidates
{
    private readonly List<string> _backends = [];
    private readonly List<PatchPlan> _plans = [];
    private readonly List<BootMachine> _machines = [];

    private Candidates()
    {
    }

    /// <summary>The plans, each named by the backend and the options that ask for it; those of one backend differ in their bytes.</summary>
    public IReadOnlyList<PatchPlan> Plans => _plans;

    /// <summary>The backend of a plan.</summary>
    public string BackendOf(int index) => _backends[index];

    /// <summary>Plans backends in every setting that makes a difference and that the user left open.</summary>
    /// <exception cref="ToolFailure">A backend cannot be planned.</exception>
    public static Candidates Of(KernelImage image, MachineSettings settings, IReadOnlyList<string> backends, string path)
    {
        var candidates = new Candidates();
        foreach (string backend in backends.Distinct())
        {
            KernelPlan.CheckName(backend);
            int first = candidates._plans.Count;
            var planned = new List<(Backend Backend, NopStyle Nops)>();
            foreach (MachineVariant variant in settings.Variants(image, backend))
            {
                // Most settings change no slot of a kernel, and planning takes longer than to see that.
                Backend slots = Slots(image, variant.Machine, path);
                if (planned.Exists(p => p.Nops == variant.Machine.Nops && HoldTheSame(p.Backend, slots)))
                {
                    continue;
                }

                planned.Add((slots, variant.Machine.Nops));
                PatchPlan plan = KernelPlan.Make(image, variant.Machine, path);
                if (candidates._plans.Count < KernelVerifier.MaxCandidates && !candidates._plans.Skip(first).Any(p => HaveSameBytes(p, plan)))
                {
                    candidates.Add(plan.Named(variant.Name), backend, variant.Machine);
                }
            }
        }

        return candidates;
    }

    /// <summary>
    /// Plans to compare once more with, where memory holds bytes of more than one: the best ones so far, and KVM with each set of features that a host may
    /// leave out. Rare hosts are without a feature or two; planning all sets for every dump would take longer than all else.
    /// </summary>
    /// <param name="image">The kernel.</param>
    /// <param name="settings">What the user said of the machine.</param>
    /// <param name="result">What the comparison with these plans gave.</param>
    /// <param name="path">The kernel's file.</param>
    /// <returns><see langword="null"/> where nothing more can be tried.</returns>
    public Candidates? Refined(KernelImage image, MachineSettings settings, MemoryVerification result, string path)
    {
        CandidateMatch? kvm = result.Candidates.Where(c => _backends[c.Index] == KvmBackend.Name).MaxBy(static c => c.Matched);
        if (settings.Features is not null || kvm is null || result.State is not (MemoryState.Mixed or MemoryState.Tampered) || !result.MixedSites().Any())
        {
            return null;
        }

        var candidates = new Candidates();
        foreach (IGrouping<string, CandidateMatch> backend in result.Candidates.GroupBy(c => _backends[c.Index]))
        {
            int most = backend.Max(static c => c.Matched);
            foreach (CandidateMatch candidate in backend.Where(c => c.Matched == most))
            {
                candidates.Add(candidate.Plan, backend.Key, _machines[candidate.Index]);
            }
        }

        var planned = new List<Backend>();
        foreach (MachineVariant variant in settings.FeatureSets(image, _machines[kvm.Index]))
        {
            Backend slots = Slots(image, variant.Machine, path);
            if (candidates._plans.Count < KernelVerifier.MaxCandidates && !planned.Exists(p => HoldTheSame(p, slots)))
            {
                planned.Add(slots);
                PatchPlan plan = KernelPlan.Make(image, variant.Machine, path);
                if (!candidates._plans.Exists(p => HaveSameBytes(p, plan)))
                {
                    candidates.Add(plan.Named(variant.Name), KvmBackend.Name, variant.Machine);
                }
            }
        }

        return candidates;
    }

    /// <summary>Plans for what an option names, in just the setting the user gave; of all backends, in every setting, where it names none.</summary>
    /// <exception cref="ToolFailure">A backend cannot be planned.</exception>
    public static Candidates OfNamed(KernelImage image, MachineSettings settings, IReadOnlyList<string> named, string path)
    {
        if (named.Count == 0)
        {
            return Of(image, settings, image.BackendNames, path);
        }

        var candidates = new Candidates();
        foreach (string backend in named.Distinct())
        {
            BootMachine machine = settings.Machine(image, backend);
            candidates.Add(KernelPlan.Make(image, machine, path), backend, machine);
        }

        return candidates;
    }

    /// <summary>The plans without those that leave the same bytes at some sites as another one of the same backend.</summary>
    /// <param name="sites">The addresses of the sites.</param>
    public IReadOnlyList<PatchPlan> DifferingAt(IReadOnlyList<VirtualAddress> sites)
    {
        var kept = new List<int>();
        for (int i = 0; i < _plans.Count; i++)
        {
            if (!kept.Exists(k => _backends[k] == _backends[i] && sites.All(a => NewBytes(_plans[k], a).SequenceEqual(NewBytes(_plans[i], a)))))
            {
                kept.Add(i);
            }
        }

        return [.. kept.Select(k => _plans[k])];
    }

    private void Add(PatchPlan plan, string backend, BootMachine machine)
    {
        _plans.Add(plan);
        _backends.Add(backend);
        _machines.Add(machine);
    }

    private static Backend Slots(KernelImage image, BootMachine machine, string path)
    {
        try
        {
            return KernelBackends.Create(image, machine);
        }
        catch (PatchException exception)
        {
            throw new ToolFailure(exception.Diagnostic with { Source = exception.Diagnostic.Source ?? path });
        }
    }

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
