using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Logging;
using PvPatch.Planning;
using PvPatch.Plans;

namespace PvPatch.Linux.Kernel;

/// <summary>Plans a kernel image: the bytes that stand at its paravirt sites after it booted on a backend.</summary>
public sealed class KernelPlanner
{
    private readonly PatchPlanner _planner;

    /// <summary>Makes a planner.</summary>
    /// <param name="loggerFactory">Where it and its plans log; nowhere where there is none.</param>
    public KernelPlanner(ILoggerFactory? loggerFactory = null) => _planner = new PatchPlanner(loggerFactory);

    /// <summary>Makes a plan by the rules of the image's era: the paravirt patcher's work, and the alternatives at the same addresses on top.</summary>
    /// <param name="image">The image; read only.</param>
    /// <param name="backend">A name from <see cref="KernelImage.BackendNames"/>.</param>
    /// <param name="plan">The plan.</param>
    /// <param name="diagnostics">Why there is none: an unknown backend (PV6106), an alternative of unknown form (PV6105), or what <see cref="PatchPlanner"/> says.</param>
    /// <returns>Whether there is a plan.</returns>
    public bool TryPlan(KernelImage image, string backend, [NotNullWhen(true)] out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentException.ThrowIfNullOrEmpty(backend);
        plan = null;
        if (!image.BackendNames.Contains(backend))
        {
            diagnostics = [PatchDiagnostic.Error(KernelDiagnosticCodes.BackendNotInImage, $"there is no backend \"{backend}\" for this image") with
            {
                Expected = string.Join(", ", image.BackendNames),
                Help = "Of a kernel image this version of PvPatch knows the functions its ops table holds on disk.",
            }];
            return false;
        }

        var options = new PlanOptions { Rules = image.Era.Rules, OpsTableAddress = image.OpsTable };
        if (!_planner.TryPlan(image.Code, image.Sites, image.Native, options, out PatchPlan? calls, out diagnostics))
        {
            return false;
        }

        try
        {
            plan = LayAlternatives(image, calls);
            diagnostics = plan.Diagnostics;
            return true;
        }
        catch (PatchException e)
        {
            diagnostics = [e.Diagnostic];
            return false;
        }
    }

    private static PatchPlan LayAlternatives(KernelImage image, PatchPlan calls)
    {
        if (image.Era.Alternatives is not AlternativeRules rules || image.Alternatives is null)
        {
            return calls;
        }

        // On a native boot nothing is paravirtualised: no Xen PV guest, and the lock slots hold the native functions.
        bool? NativeFeature(int feature) =>
            feature == rules.XenPv || feature == rules.PvUnlock || feature == rules.VcpuPreempt ? false : null;
        return PlanComposer.Compose(calls, new SiteAlternativesPlanner(image.Elf, rules, NativeFeature).Plan(calls, image.Alternatives));
    }
}
