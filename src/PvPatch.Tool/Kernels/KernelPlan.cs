using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Kernels;

/// <summary>Plans of kernels for the commands, and the options that name backends.</summary>
internal static class KernelPlan
{
    private static readonly KernelPlanner s_planner = new();

    /// <summary>The option of the backend, for commands that need one.</summary>
    public static Option<string> RequiredBackend() =>
        new("--backend", "-b")
        {
            Description = "What the kernel shall stand ready for; info lists the names",
            HelpName = "NAME",
            Required = true
        };

    /// <summary>The option of the backend, for commands that can do without.</summary>
    public static Option<string> Backend() =>
        new("--backend", "-b")
        {
            Description = "Show what is done for this backend",
            HelpName = "NAME",
            DefaultValueFactory = static _ => "native"
        };

    /// <summary>The option of several backends.</summary>
    public static Option<string[]> Backends(string description) =>
        new("--backend", "-b") { Description = description, HelpName = "NAME" };

    /// <exception cref="ToolFailure">The name is empty.</exception>
    public static void CheckName(string backend)
    {
        if (backend.Length == 0)
        {
            throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, "the name of the backend is empty"));
        }
    }

    /// <summary>Plans an image, or gives the reasons why it cannot be planned.</summary>
    public static PatchPlan? TryMake(KernelImage image, BootMachine machine, string path, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        CheckName(machine.Backend);
        if (s_planner.TryPlan(image, machine, out PatchPlan? plan, out diagnostics))
        {
            return plan;
        }

        diagnostics = In(path, diagnostics);
        return null;
    }

    /// <summary>Diagnostics with a file as the source of those that have none.</summary>
    public static IReadOnlyList<PatchDiagnostic> In(string path, IReadOnlyList<PatchDiagnostic> diagnostics) =>
        [.. diagnostics.Select(d => d with { Source = d.Source ?? path })];

    /// <summary>Plans an image.</summary>
    /// <exception cref="ToolFailure">There is no such backend, or the image cannot be planned.</exception>
    public static PatchPlan Make(KernelImage image, BootMachine machine, string path) =>
        TryMake(image, machine, path, out IReadOnlyList<PatchDiagnostic> diagnostics) ?? throw new ToolFailure(diagnostics);
}
