using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Logging;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Modules;
using PvPatch.Linux.Text;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Linux;

/// <summary>Plans kernel images and modules: the bytes at their paravirt sites after the kernel booted on a backend.</summary>
public sealed class KernelPlanner
{
    private readonly PatchPlanner _planner;

    /// <summary>Makes a planner.</summary>
    /// <param name="loggerFactory">The factory of the loggers of the planner and its plans; <see langword="null"/> for no logging.</param>
    public KernelPlanner(ILoggerFactory? loggerFactory = null) => _planner = new PatchPlanner(loggerFactory);

    /// <summary>Makes a plan for a backend on a machine with default facts.</summary>
    /// <param name="image">The image; read only.</param>
    /// <param name="backend">A name from <see cref="KernelBackends.Names"/>.</param>
    /// <param name="plan">The plan.</param>
    /// <param name="diagnostics">The reasons where no plan was made.</param>
    /// <returns>Whether a plan was made.</returns>
    public bool TryPlan(
        KernelImage image, string backend, [NotNullWhen(true)] out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics) =>
        TryPlan(image, new BootMachine { Backend = backend }, out plan, out diagnostics);

    /// <summary>
    /// Makes a plan by the rules of the image's era: the bytes of the paravirt patcher, and over them those of the alternatives at the same
    /// addresses.
    /// </summary>
    /// <param name="image">The image; read only.</param>
    /// <param name="machine">The machine it boots on.</param>
    /// <param name="plan">The plan.</param>
    /// <param name="diagnostics">
    /// Why there is none: an unknown backend (PV6106), an alternative of unknown form (PV6105), or what <see cref="PatchPlanner"/> says.
    /// </param>
    /// <returns>Whether a plan was made.</returns>
    public bool TryPlan(
        KernelImage image, BootMachine machine, [NotNullWhen(true)] out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(machine);
        return TryPlan(image, CodeOf(image), machine, out plan, out diagnostics);
    }

    /// <summary>Makes a plan of a module: the bytes at its sites once its kernel, booted on a machine, has loaded it.</summary>
    /// <remarks>
    /// A module's sites are patched when it is loaded, by the rules and in the order of the kernel itself: to 5.12 alternatives and then
    /// sites, 5.13 to 6.7 sites and then alternatives, 6.8 and later alternatives alone.
    /// </remarks>
    /// <param name="module">The module; read only.</param>
    /// <param name="machine">The machine its kernel booted on.</param>
    /// <param name="plan">The plan, for <see cref="PlacedModule.Code"/>; without sites for a module that has none.</param>
    /// <param name="diagnostics">
    /// Why there is none: an unknown backend (PV6106), an alternative of unknown form (PV6105), or what <see cref="PatchPlanner"/> says.
    /// </param>
    /// <returns>Whether a plan was made.</returns>
    public bool TryPlan(
        PlacedModule module, BootMachine machine, [NotNullWhen(true)] out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(module);
        ArgumentNullException.ThrowIfNull(machine);
        return TryPlan(
            module.Kernel, new PlannedCode(module.Elf, module.Code, module.Sites, module.Alternatives), machine, out plan, out diagnostics);
    }

    /// <summary>Makes a plan of a module: the bytes at its sites once its kernel, booted on a machine, has loaded it.</summary>
    /// <param name="module">The module; read only.</param>
    /// <param name="machine">The machine its kernel booted on.</param>
    /// <returns>The plan, for <see cref="PlacedModule.Code"/>.</returns>
    /// <exception cref="PatchException">No plan can be made; the exception has the first error.</exception>
    public PatchPlan Plan(PlacedModule module, BootMachine machine) =>
        TryPlan(module, machine, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan : throw new PatchException(FirstError(diagnostics));

    /// <summary>Makes a plan for a backend on a machine with default facts.</summary>
    /// <param name="image">The image; read only.</param>
    /// <param name="backend">A name from <see cref="KernelBackends.Names"/>.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="PatchException">No plan can be made; the exception has the first error.</exception>
    public PatchPlan Plan(KernelImage image, string backend) => Plan(image, new BootMachine { Backend = backend });

    /// <summary>Makes a plan by the rules of the image's era.</summary>
    /// <param name="image">The image; read only.</param>
    /// <param name="machine">The machine it boots on.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="PatchException">No plan can be made; the exception has the first error.</exception>
    public PatchPlan Plan(KernelImage image, BootMachine machine) =>
        TryPlan(image, machine, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan : throw new PatchException(FirstError(diagnostics));

    internal static PatchDiagnostic FirstError(IReadOnlyList<PatchDiagnostic> diagnostics) =>
        diagnostics.First(static d => d.Severity == DiagnosticSeverity.Error);

    /// <summary>Makes a plan for a kernel from a backend of that kernel.</summary>
    internal bool TryPlan(KernelImage image, BootMachine machine, Backend backend, [NotNullWhen(true)] out PatchPlan? plan,
        out IReadOnlyList<PatchDiagnostic> diagnostics) =>
        TryPlan(image, CodeOf(image), machine, backend, out plan, out diagnostics);

    /// <summary>Makes a plan for code that belongs to a kernel, by the kernel's era: the kernel's own or that of a module.</summary>
    internal bool TryPlan(KernelImage kernel, PlannedCode code, BootMachine machine, [NotNullWhen(true)] out PatchPlan? plan,
        out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        if (KernelBackends.TryCreate(kernel, machine, out Backend? backend, out PatchDiagnostic? error))
        {
            return TryPlan(kernel, code, machine, backend, out plan, out diagnostics);
        }

        plan = null;
        diagnostics = [error];
        return false;
    }

    private static PlannedCode CodeOf(KernelImage image) => new(image.Elf, image.Code, image.Sites, image.Alternatives);

    private bool TryPlan(
        KernelImage kernel, PlannedCode code, BootMachine machine, Backend backend, [NotNullWhen(true)] out PatchPlan? plan,
        out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        plan = null;
        try
        {
            var options = new PlanOptions
            {
                Rules = kernel.Era.Rules,
                SlotAddresses = kernel.SlotWords,
                BugTarget = kernel.BugTarget,
                BugTargetName = kernel.Era.BugFunction,
                Nops = kernel.Era.ChoosesNopsByCpu ? machine.Nops : null,
            };
            if (!_planner.TryPlan(code.Code, code.Sites, backend, options, out PatchPlan? calls, out diagnostics))
            {
                return false;
            }

            plan = LayAlternatives(kernel, code, backend, calls);
            diagnostics = plan.Diagnostics;
            return true;
        }
        catch (PatchException e)
        {
            diagnostics = [e.Diagnostic];
            return false;
        }
    }

    private static PatchPlan LayAlternatives(KernelImage kernel, PlannedCode code, Backend backend, PatchPlan calls)
    {
        if (kernel.Era.Alternatives is not AlternativeRules rules || code.Alternatives is null)
        {
            return calls;
        }

        bool? HasFeature(int feature) =>
            feature == rules.XenPv ? backend.Name == XenBackend.Name
            : feature == rules.PvUnlock ? IsChanged(kernel, backend, "lock.queued_spin_unlock")
            : feature == rules.VcpuPreempt ? IsChanged(kernel, backend, "lock.vcpu_is_preempted")
            : null;
        return PlanComposer.Compose(calls, new SiteAlternativesPlanner(code.Elf, rules, HasFeature).Plan(calls, code.Alternatives));
    }

    /// <summary>
    /// Whether a lock slot no longer holds the native function: the condition that paravirt_set_cap tests before alternatives are applied.
    /// </summary>
    private static bool IsChanged(KernelImage image, Backend backend, string slot) =>
        image.Layout.TryGetSlot(slot, out OpSlot? op) && backend[op.Index].Target != image.Native[op.Index].Target;
}
