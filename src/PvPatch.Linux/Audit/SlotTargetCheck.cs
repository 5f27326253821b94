using PvPatch.Analysis;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Audit;

/// <summary>
/// Checks the functions that a user puts into slots (<see cref="BootMachine.Overrides"/>) against the conventions of these slots: what a
/// function destroys, all that it calls included, is computed from the kernel's code.
/// </summary>
internal static class SlotTargetCheck
{
    /// <summary>
    /// Instructions that may be walked for all of them: a fraction of a second. A function whose effects take more is undecided.
    /// </summary>
    public const long Work = 10_000_000;

    /// <summary>Checks the overrides of a machine.</summary>
    /// <param name="image">The kernel.</param>
    /// <param name="machine">The machine; nothing is checked where it has no overrides.</param>
    /// <param name="isTrusted">Whether a function that breaks its slot's convention is a warning, not an error.</param>
    /// <returns>
    /// PV6171 for each that breaks it, and a warning PV6172 for each of which it is not known; or why the machine's backend can't be made.
    /// </returns>
    public static IReadOnlyList<PatchDiagnostic> Of(KernelImage image, BootMachine machine, bool isTrusted)
    {
        if (machine.Overrides is not { Count: > 0 } overrides)
        {
            return [];
        }

        if (!KernelBackends.TryCreate(image, machine, out Backend? backend, out PatchDiagnostic? error))
        {
            return [error];
        }

        CodeAnalyzer? analyzer = image.Bitness == 64 ? new CodeAnalyzer(image.Code, new KernelCodeFacts(image), Work) : null;
        var found = new List<PatchDiagnostic>();
        foreach (string name in overrides.Functions)
        {
            OpSlot slot = image.Layout[name];
            if (slot.Kind != SlotKind.Call || backend[slot.Index] is not { Target: VirtualAddress target } operation)
            {
                continue; // what is jumped to does not come back
            }

            string function = operation.TargetName ?? target.ToString();
            if (analyzer is null)
            {
                found.Add(Undecided(slot, function, target, "a kernel of 32 bits"));
                continue;
            }

            FunctionEffects effects = analyzer.EffectsOf(target);
            RegisterSet destroys = effects.Destroys | (effects.IsStackBalanced ? RegisterSet.None : RegisterSet.Rsp);
            RegisterSet breaks = destroys.Except(slot.Convention.DestroyedBy(64));
            if (effects.Undecided is PatchDiagnostic why)
            {
                found.Add(Undecided(slot, function, target, why.Found is null ? why.Message : $"{why.Message}: {why.Found}"));
            }
            else if (!breaks.IsEmpty)
            {
                found.Add(Breaks(slot, function, analyzer.FirstWriterOf(target, breaks) ?? target, breaks, isTrusted));
            }
        }

        return found;
    }

    private static PatchDiagnostic Breaks(OpSlot slot, string function, VirtualAddress writer, RegisterSet breaks, bool isTrusted) =>
        new(KernelDiagnosticCodes.SlotTargetBreaksConvention, isTrusted ? DiagnosticSeverity.Warning : DiagnosticSeverity.Error,
            $"{function} destroys registers that callers of the slot {slot.Name} keep values in")
        {
            Address = writer,
            Found = $"destroys {breaks}",
            Expected = $"at most {slot.Convention.DestroyedBy(64)}",
            Help = isTrusted ? null
                : "Give a function that keeps them, as one with a thunk that saves registers does; or plan it all the same with --trust.",
        };

    private static PatchDiagnostic Undecided(OpSlot slot, string function, VirtualAddress target, string why) =>
        PatchDiagnostic.Warning(KernelDiagnosticCodes.SlotTargetUndecided,
            $"whether {function} keeps what callers of the slot {slot.Name} keep values in is not known") with
        {
            Address = target,
            Found = why,
            Expected = $"code that destroys at most {slot.Convention.DestroyedBy(64)}",
        };
}
