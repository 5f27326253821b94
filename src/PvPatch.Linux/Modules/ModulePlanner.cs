using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Logging;
using PvPatch.Linux.Text;
using PvPatch.Plans;

namespace PvPatch.Linux.Modules;

/// <summary>Plans a module: the bytes that stand at its paravirt sites once its kernel, booted on a backend, has loaded it.</summary>
/// <remarks>
/// A module's sites are patched when it is loaded, by the rules and in the order of the kernel itself: to 5.12 alternatives and then
/// sites, 5.13 to 6.7 sites and then alternatives, 6.8 and later alternatives alone.
/// </remarks>
public sealed class ModulePlanner
{
    private readonly KernelPlanner _planner;

    /// <summary>Makes a planner.</summary>
    /// <param name="loggerFactory">Where it and its plans log; nowhere where there is none.</param>
    public ModulePlanner(ILoggerFactory? loggerFactory = null) => _planner = new KernelPlanner(loggerFactory);

    /// <summary>Makes a plan.</summary>
    /// <param name="module">The module; read only.</param>
    /// <param name="machine">What its kernel booted on.</param>
    /// <param name="plan">The plan, for <see cref="PlacedModule.Code"/>; without sites for a module that has none.</param>
    /// <param name="diagnostics">Why there is none: an unknown backend (PV6106), an alternative of unknown form (PV6105), or what <see cref="Mechanisms.PatchPlanner"/> says.</param>
    /// <returns>Whether there is a plan.</returns>
    public bool TryPlan(PlacedModule module, BootMachine machine, [NotNullWhen(true)] out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(module);
        ArgumentNullException.ThrowIfNull(machine);
        return _planner.TryPlan(module.Kernel, new PlannedCode(module.Elf, module.Code, module.Sites, module.Alternatives), machine, out plan, out diagnostics);
    }
}
