using PvPatch.Encoding;
using PvPatch.Linux.Kernel;
using PvPatch.Linux.Memory;
using PvPatch.Ops;
using PvPatch.Plans;

namespace PvPatch.Tool.Kernels;

/// <summary>The plans of everything a kernel may have booted on.</summary>
internal sealed class Candidates
{
    private readonly List<string> _backends = [];
    private readonly List<PatchPlan> _plans = [];

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
                    candidates._plans.Add(plan.Named(variant.Name));
                    candidates._backends.Add(backend);
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
            candidates._plans.Add(KernelPlan.Make(image, settings.Machine(image, backend), path));
            candidates._backends.Add(backend);
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
