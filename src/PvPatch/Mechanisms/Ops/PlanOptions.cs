using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>What a caller may say about a plan beyond image, sites and backend.</summary>
public sealed record PlanOptions
{
    /// <summary>How decisions are made.</summary>
    public PatchRules Rules { get; init; } = PatchRules.Default;

    /// <summary>
    /// Run address of the ops table, slot 0 first, one word a slot. Where it is given, every site whose call names its slot by
    /// address must name the slot the site table says.
    /// </summary>
    public VirtualAddress? OpsTableAddress { get; init; }

    /// <summary>
    /// Run address of each slot's word, by slot index, where the slots are not one table (Linux from 6.18 on keeps its lock slots
    /// apart); 0 for a slot whose word is not known. Goes before <see cref="OpsTableAddress"/>.
    /// </summary>
    public IReadOnlyList<VirtualAddress>? SlotAddresses { get; init; }

    /// <summary>
    /// Run address of the function that a slot's sites call directly before they are patched, by slot index; 0 for a slot whose sites do
    /// not. A site that holds one direct call of that function, the set-up of its arguments before it or not, is planned as one that holds
    /// an indirect call through the slot; so is one that jumps there, where code jumps to the slot.
    /// </summary>
    public IReadOnlyList<VirtualAddress>? SlotFunctions { get; init; }

    /// <summary>
    /// The plan the image was patched with. Its sites may hold that plan's bytes as well as the original ones, and the new plan's
    /// revert gives the originals back. Of a chain of such plans the last four are remembered: an image further behind is refused.
    /// </summary>
    public PatchPlan? Previous { get; init; }

    /// <summary>Room for save/restore thunks, in the image and outside every site. It belongs to the plan from then on.</summary>
    public AddressRange? Thunks { get; init; }

    /// <summary>The function called at the sites of missing operations under rules that call one.</summary>
    public VirtualAddress? BugTarget { get; init; }

    /// <summary>The name of <see cref="BugTarget"/>, for reports.</summary>
    public string? BugTargetName { get; init; }

    /// <summary>The nops, where the rules do not fix them: kernels up to 5.10 choose by processor.</summary>
    public NopStyle? Nops { get; init; }
}
