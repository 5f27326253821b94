using PvPatch.Images;
using PvPatch.Linux;
using PvPatch.Linux.Text;
using PvPatch.Linux.Verify;
using PvPatch.Plans;

namespace PvPatch.Tool.Revert;

/// <summary>Finds the plan of an original kernel with which an image was patched.</summary>
internal static class OriginalKernel
{
    /// <summary>The plan, among those of the original's backends in every setting, that accounts for every site of the image.</summary>
    /// <exception cref="ToolFailure">The original cannot be planned, or no plan accounts for the image (PV7006).</exception>
    public static PatchPlan PlanThatMade(CodeImage patched, KernelImage original, MachineSettings settings, string originalPath)
    {
        VerifyResult? nearest = null;
        var leftOut = new List<PatchDiagnostic>();
        foreach (string backend in original.BackendNames)
        {
            BootCandidates candidates = Candidates.Of(original, settings, [backend], originalPath);
            leftOut.AddRange(candidates.Diagnostics);
            foreach (PatchPlan memory in candidates.Plans)
            {
                PatchPlan plan = BootablePlan.ForRevert(original, memory);
                VerifyResult state = plan.Verify(patched);
                if (state.Outside == 0 && state.Others.Count == 0)
                {
                    return plan;
                }

                nearest = nearest is null || state.Others.Count < nearest.Others.Count ? state : nearest;
            }
        }

        throw new ToolFailure([
            PatchDiagnostic.Error(ToolDiagnosticCodes.NotThatOriginal, "the image was not made from this original") with
            {
                Source = originalPath,
                Found = $"{nearest?.Others.Count + nearest?.Outside} sites that hold other bytes or are not there",
                Expected =
                    $"at each of its {original.Sites.Count} sites the original's bytes or those of "
                    + $"{string.Join(", ", original.BackendNames)}",
                Help = "Give the very kernel that was patched, with the slots it was patched for (--slots); or the plan.",
            },
            .. leftOut, .. nearest?.ToDiagnostics() ?? []]);
    }
}
