using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>Whether targets are code. Asked under the patch lock.</summary>
internal sealed class ExecutableTest(CodeArena arena)
{
    private Predicate<VirtualAddress>? _executable;

    /// <summary>Whether an address is executable memory; also where the system does not tell.</summary>
    public bool IsCode(VirtualAddress address)
    {
        if (arena.Memory.Contains(address, 1))
        {
            return arena.Memory.IsCommittedCode(address, 1);
        }

        // The list of mappings is read when it is needed, and once more before a target is refused: it may be younger than the list.
        if (_executable?.Invoke(address) == true)
        {
            return true;
        }

        _executable = arena.Platform.ExecutableTest();
        return _executable?.Invoke(address) ?? true;
    }

    public static PatchDiagnostic NotCode(OpSlot slot, VirtualAddress? target, string? name) =>
        PatchDiagnostic.Error(DiagnosticCodes.TargetNotExecutable, $"the target of {slot} is not executable memory") with
        {
            Address = target,
            Found = name,
            Help = "Give the address of native code, or of an UnmanagedCallersOnly method (ManagedTarget).",
        };
}
