using PvGuest.Hypervisors;
using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvGuest;

/// <summary>How a guest's sites are when it starts.</summary>
internal enum Patching
{
    /// <summary>As assembled: calls through the table of operations.</summary>
    None,

    /// <summary>Patched for the hypervisor.</summary>
    Patched,

    /// <summary>Patched, lazy modes included: calls are put off and made together.</summary>
    Batched,
}

/// <summary>What came of one run of the guest.</summary>
internal sealed record GuestRun
{
    public const int DefaultTicks = 24;
    public const int DefaultPeriod = 600;

    public required int Bitness { get; init; }

    public required string Hypervisor { get; init; }

    public required Patching Patching { get; init; }

    public required Costs Costs { get; init; }

    /// <summary>What the guest printed.</summary>
    public required string Output { get; init; }

    /// <summary>All memory for page tables.</summary>
    public required byte[] PageTables { get; init; }

    /// <summary>
    /// How often each remap of 32 pages and each context switch left the guest, interrupts that came in between included.
    /// </summary>
    public required IReadOnlyList<PhaseCost> Phases { get; init; }

    /// <summary>Calls in each batch the hypervisor was given, and in each that the library's lazy modes gave beside.</summary>
    public required IReadOnlyList<int> Batches { get; init; }

    public required IReadOnlyList<int> ModelBatches { get; init; }

    /// <summary>Slots with a body in the backend, and whether one was executed at a site.</summary>
    public required IReadOnlyDictionary<string, bool> Bodies { get; init; }

    /// <summary>Runs the guest on a hypervisor.</summary>
    /// <param name="image">The guest.</param>
    /// <param name="hypervisor">What it runs on, fresh.</param>
    /// <param name="patching">How its sites are.</param>
    /// <param name="backend">What it is patched for; <see langword="null"/> for the hypervisor's own backend.</param>
    /// <param name="options">Options of the standard backends.</param>
    /// <param name="ticks">How often the timer interrupts.</param>
    /// <param name="period">Instructions from one tick to the next.</param>
    /// <returns>What came of it.</returns>
    /// <exception cref="GuestException">The guest did not get to its end.</exception>
    public static GuestRun Of(
        GuestImage image, Hypervisor hypervisor, Patching patching, Backend? backend = null, StandardBackendOptions? options = null,
        int ticks = DefaultTicks, int period = DefaultPeriod)
    {
        backend ??= patching == Patching.Batched
            ? hypervisor.CreateBackend(image, options)
            : hypervisor.CreateUnbatchedBackend(image, options);
        CodeImage text = image.Copy();
        PatchPlan plan = image.Plan(backend, text);
        if (patching != Patching.None)
        {
            plan.Apply(text);
        }

        using var monitor = new GuestMonitor(image, text, hypervisor, backend, ticks, period);
        monitor.Run();
        return new GuestRun
        {
            Bitness = image.Bitness,
            Hypervisor = hypervisor.Name,
            Patching = patching,
            Costs = monitor.Meter.Costs,
            Output = monitor.Console,
            PageTables = monitor.PageTables.ToArray(),
            Phases = monitor.Meter.Phases,
            Batches = monitor.Meter.Batches,
            ModelBatches = monitor.Meter.ModelBatches,
            Bodies = BodiesOf(backend, plan, monitor),
        };
    }

    private static Dictionary<string, bool> BodiesOf(Backend backend, PatchPlan plan, GuestMonitor monitor)
    {
        var bodies = backend.Layout.Slots.Where(s => backend[s.Index].Body is not null).ToDictionary(s => s.Name, _ => false);
        foreach (SiteDecision site in plan)
        {
            if (site.Action == PatchAction.Inline && monitor.Meter.WasExecuted(site.Address.Value))
            {
                bodies[backend.Layout.Slots[site.Outcome.Type!.Value].Name] = true;
            }
        }

        return bodies;
    }
}
