using System.CommandLine;
using PvPatch.Linux.Kernel;
using PvPatch.Plans;

namespace PvPatch.Tool.Kernels;

/// <summary>Plans of kernels, as the commands need them.</summary>
internal static class KernelPlan
{
    /// <summary>The option that says which backend, for commands that do something with it.</summary>
    public static Option<string> RequiredBackend() =>
        new("--backend", "-b") { Description = "What the kernel shall stand ready for; info lists the names", HelpName = "NAME", Required = true };

    /// <summary>The option that says which backend, for commands that show something.</summary>
    public static Option<string> Backend() =>
        new("--backend", "-b") { Description = "Show what is done for this backend", HelpName = "NAME", DefaultValueFactory = static _ => "native" };

    /// <summary>Plans an image, or says why it cannot be planned.</summary>
    public static PatchPlan? TryMake(KernelImage image, string backend, string path, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        if (backend.Length == 0)
        {
            diagnostics = [PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, "the name of the backend is empty")];
            return null;
        }

        if (new KernelPlanner().TryPlan(image, backend, out PatchPlan? plan, out diagnostics))
        {
            return plan;
        }

        diagnostics = [.. diagnostics.Select(d => d with { Source = d.Source ?? path })];
        return null;
    }

    /// <summary>Plans an image.</summary>
    /// <exception cref="ToolFailure">There is no such backend, or the image cannot be planned.</exception>
    public static PatchPlan Make(KernelImage image, string backend, string path) =>
        TryMake(image, backend, path, out IReadOnlyList<PatchDiagnostic> diagnostics) ?? throw new ToolFailure(diagnostics);
}
