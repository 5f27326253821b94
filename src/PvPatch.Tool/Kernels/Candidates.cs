using PvPatch.Linux;
using PvPatch.Linux.Verify;
using PvPatch.Plans;

namespace PvPatch.Tool.Kernels;

/// <summary>The plans of all machines that a kernel may have booted on, each named by its backend and options.</summary>
internal static class Candidates
{
    /// <summary>Plans backends in every setting that changes bytes and that the user left open.</summary>
    /// <exception cref="ToolFailure">A backend cannot be planned.</exception>
    public static BootCandidates Of(KernelImage image, MachineSettings settings, IReadOnlyList<string> backends, string path)
    {
        foreach (string backend in backends)
        {
            KernelPlan.CheckName(backend);
        }

        return BootCandidates.TryCreate(image, out BootCandidates? candidates, out IReadOnlyList<PatchDiagnostic> diagnostics,
            settings.Known(image), backends, m => settings.Describe(image, m))
            ? candidates
            : throw new ToolFailure(KernelPlan.In(path, diagnostics));
    }

    /// <summary>
    /// Plans for what an option names, in just the setting the user gave; of all backends, in every setting, where it names none. Of those
    /// that leave the same bytes at some sites, one of each backend.
    /// </summary>
    /// <exception cref="ToolFailure">A backend cannot be planned.</exception>
    public static IReadOnlyList<PatchPlan> Differing(KernelImage image, MachineSettings settings,
        IReadOnlyList<string> named, IReadOnlyList<VirtualAddress> sites, string path, ToolRun run)
    {
        if (named.Count > 0)
        {
            return [.. named.Distinct().Select(backend => KernelPlan.Make(image, settings.Machine(image, backend), path))];
        }

        BootCandidates candidates = Of(image, settings, image.BackendNames, path);
        run.Warn(candidates.Diagnostics, hasNoPlace: true);
        return [.. candidates.DifferingAt(sites).Select(static c => c.Plan)];
    }

    /// <summary>Compares memory with a kernel.</summary>
    /// <param name="image">The kernel.</param>
    /// <param name="memory">The memory.</param>
    /// <param name="settings">The facts of the machine given by the user.</param>
    /// <param name="wanted">The backend the machine should have run on; <see langword="null"/> for any.</param>
    /// <param name="path">The kernel's file.</param>
    /// <param name="cancellation">Stops the work.</param>
    /// <exception cref="ToolFailure">A backend cannot be planned, or the memory does not hold the kernel.</exception>
    public static MemoryVerification Verify(KernelImage image, Linux.Dumps.MemoryFile memory, MachineSettings settings, string? wanted,
        string path, CancellationToken cancellation)
    {
        if (wanted is not null)
        {
            KernelPlan.CheckName(wanted);
        }

        IReadOnlyList<string> backends = wanted is null ? image.BackendNames : [wanted, .. image.BackendNames];
        return KernelVerifier.TryVerify(
            image, memory, out MemoryVerification? result, out IReadOnlyList<PatchDiagnostic> diagnostics, settings.Known(image), backends,
            m => settings.Describe(image, m), cancellation)
            ? result
            : throw new ToolFailure(KernelPlan.In(path, diagnostics));
    }
}
