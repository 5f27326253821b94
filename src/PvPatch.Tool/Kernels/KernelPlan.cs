using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Audit;
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

    /// <summary>The option for commands that check what <c>--slots</c> names.</summary>
    public static Option<bool> Trust() =>
        new("--trust") { Description = "Take functions of --slots that destroy more than their slot's convention lets them" };

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

    /// <summary>Checks the functions that the user put into slots against the slots' conventions, and warns of those not known.</summary>
    /// <exception cref="ToolFailure">One destroys what its slot's callers keep, and is not trusted (PV6171).</exception>
    public static void CheckSlots(KernelImage image, BootMachine machine, bool isTrusted, string path, ToolRun run)
    {
        IReadOnlyList<PatchDiagnostic> found = In(path, SlotTargetCheck.Of(image, machine, isTrusted));
        if (found.FirstOrDefault(static d => d.Severity == DiagnosticSeverity.Error) is { } error)
        {
            throw new ToolFailure([error, .. found.Where(d => d != error)]); // the first one gives the exit code
        }

        run.Warn(found, hasNoPlace: true);
    }

    /// <summary>Diagnostics with a file as the source of those that have none.</summary>
    public static IReadOnlyList<PatchDiagnostic> In(string path, IReadOnlyList<PatchDiagnostic> diagnostics) =>
        [.. diagnostics.Select(d => d with { Source = d.Source ?? path })];

    /// <summary>Plans an image.</summary>
    /// <exception cref="ToolFailure">There is no such backend, or the image cannot be planned.</exception>
    public static PatchPlan Make(KernelImage image, BootMachine machine, string path) =>
        TryMake(image, machine, path, out IReadOnlyList<PatchDiagnostic> diagnostics) ?? throw new ToolFailure(diagnostics);
}
