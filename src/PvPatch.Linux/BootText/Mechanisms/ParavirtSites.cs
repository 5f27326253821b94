using System.Diagnostics.CodeAnalysis;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Linux.BootText;

/// <summary>
/// Paravirt sites: the plan that <see cref="KernelPlanner"/> makes for a backend of the functions that the slots hold, laid into the text.
/// </summary>
/// <remarks>
/// The hypervisor need not be known. What a slot holds decides, and three features: XENPV out of the state, and those that say that a
/// lock slot is not native, which the kernel sets by looking at the slots. 5.10 goes by slot number and not by pointer where its patch
/// function is the native one.
/// </remarks>
internal sealed class ParavirtSites : ITextMechanism
{
    private const string PatchHook = "init.patch"; // to 5.12

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.Paravirt;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Image.Sites.Count;

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        KernelImage image = run.Kernel.Image;
        bool nopsKnown = !image.Era.ChoosesNopsByCpu || run.State.Nops is not null;
        if (!nopsKnown || run.State.Features.Has(XenIretPatch.XenPv) is not bool isXen
            || !TryMakeBackend(run, isXen, out Backend? backend))
        {
            for (int i = 0; i < image.Sites.Count; i++)
            {
                run.LeaveOpen(image.Sites[i].Address, image.Sites[i].Budget, TextMechanism.Paravirt);
            }

            return;
        }

        var machine = new BootMachine { Backend = backend.Name };
        machine = run.State.Nops is null ? machine : machine with { Nops = run.State.Nops };
        if (!new KernelPlanner().TryPlan(image, machine, backend, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics))
        {
            foreach (PatchDiagnostic diagnostic in diagnostics)
            {
                run.Findings.Add(diagnostic);
            }

            return;
        }

        foreach (SiteDecision site in plan)
        {
            if (!site.NewBytes.SequenceEqual(site.OldBytes))
            {
                run.Write(site.Address, site.NewBytes, TextMechanism.Paravirt);
            }
        }
    }

    /// <summary>Makes a backend of what the slots hold; none where a slot that has sites is not known.</summary>
    private static bool TryMakeBackend(TextRun run, bool isXen, [NotNullWhen(true)] out Backend? backend)
    {
        KernelImage image = run.Kernel.Image;
        BootState state = run.State;
        backend = null;
        if (state.Slots.Count != image.Layout.Count)
        {
            return false;
        }

        // The file's slots are the native ones.
        bool bySlot = image.Layout.TryGetSlot(PatchHook, out OpSlot? hook)
            && state.Slots[hook.Index]?.Value == run.Kernel.FileWord(image.SlotWords[hook.Index]);
        foreach (OpSlot slot in image.Layout.Slots)
        {
            if (state.Slots[slot.Index] is null && !image.SlotWords[slot.Index].IsZero)
            {
                return false;
            }
        }

        backend = image.Native.Derive(isXen ? XenBackend.Name : NativeBackend.Name, b =>
        {
            foreach (OpSlot slot in image.Layout.Slots)
            {
                if (state.Slots[slot.Index] is VirtualAddress target && slot.Kind != SlotKind.Data)
                {
                    b.Set(slot.Name, OperationOf(run.Kernel, slot, target, hook is null ? null : bySlot));
                }
            }
        });
        return true;
    }

    /// <summary>The operation of a slot that holds a function.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="slot">The slot.</param>
    /// <param name="target">The function; 0 for NULL.</param>
    /// <param name="bySlot">Whether the native patch function is in charge; <see langword="null"/> in kernels without one.</param>
    private static Operation OperationOf(TextKernel kernel, OpSlot slot, VirtualAddress target, bool? bySlot)
    {
        Operation native = kernel.Image.Native[slot.Index];
        bool isNative = target.Value == kernel.FileWord(kernel.Image.SlotWords[slot.Index]);
        if (isNative && bySlot != false)
        {
            return native;
        }

        if (bySlot == true && native.Kind == OperationKind.Inline)
        {
            return native.Retarget(target);
        }

        SlotTargets targets = kernel.Image.Targets;
        return target.IsZero ? Operation.Missing
            : target == targets.Find("_paravirt_nop") || target == targets.Find("nop_func") ? Operation.Nop.WithTarget(target)
            : target == targets.Find("_paravirt_ident_64") ? Operation.Identity64.WithTarget(target)
            : slot.Kind == SlotKind.Jump ? Operation.Jump(target)
            : Operation.Call(target);
    }
}
