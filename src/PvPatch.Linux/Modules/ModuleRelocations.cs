using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Modules;

/// <summary>
/// The relocations of a placed module that could not be done: harmless, unless something that is planned holds one.
/// </summary>
internal sealed class ModuleRelocations(List<UnresolvedRelocation> unresolved, ModuleSymbols symbols)
{
    private readonly UnresolvedRelocations _unresolved = new(unresolved);

    /// <summary>How many there are.</summary>
    public int Count => _unresolved.Count;

    /// <summary>Whether a range holds none.</summary>
    /// <param name="address">Its first address.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="what">Its name for the message.</param>
    /// <param name="error">PV6143 with the first one.</param>
    public bool TryCheck(VirtualAddress address, long length, string what, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = !_unresolved.TryFind(address, length, out UnresolvedRelocation reference) ? null : PatchDiagnostic.Error(
            KernelDiagnosticCodes.ModuleUnresolved,
            $"{what} of the module refers to {symbols.Describe(reference.Symbol)}, {Say(reference.Reason)}") with
        {
            Address = reference.Address,
            Help = reference.Reason == UnresolvedReason.OutOfReach
                ? "Modules lie within 2 GiB of their kernel: is this the address of this module, and of this kernel without KASLR?"
                : "Is this the kernel the module was built for? A kernel without symbols needs a System.map.",
        };
        return error is null;
    }

    private static string Say(UnresolvedReason reason) => reason switch
    {
        UnresolvedReason.UnknownSymbol => "which neither it nor the kernel has",
        UnresolvedReason.OutOfReach => "which is out of reach",
        _ => "in a way that is not known",
    };
}
