using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Modules;

/// <summary>
/// The relocations of a placed module that could not be done, by address: harmless, unless something that is planned holds one.
/// </summary>
internal sealed class ModuleRelocations
{
    // No place is wider; the search begins this far before a range.
    private const int MostWidth = 8;

    private readonly ModuleReference[] _unresolved;
    private readonly ModuleSymbols _symbols;

    public ModuleRelocations(List<ModuleReference> unresolved, ModuleSymbols symbols)
    {
        _unresolved = [.. unresolved];
        _symbols = symbols;
        Array.Sort(_unresolved, static (a, b) => a.Address.CompareTo(b.Address));
    }

    /// <summary>Their number.</summary>
    public int Count => _unresolved.Length;

    /// <summary>Whether a range holds none.</summary>
    /// <param name="address">Its first address.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="what">Its name for the message.</param>
    /// <param name="error">PV6143 with the first one.</param>
    public bool TryCheck(VirtualAddress address, long length, string what, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ulong first = address.Value - Math.Min(address.Value, MostWidth);
        for (int i = LowerBound(first); length > 0 && i < _unresolved.Length && Before(_unresolved[i].Address, address, length); i++)
        {
            ModuleReference reference = _unresolved[i];
            if (reference.Address >= address.Value || address.Value - reference.Address < reference.Width)
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.ModuleUnresolved,
                    $"{what} of the module refers to {_symbols.Describe(reference.Symbol)}, {Say(reference.Reason)}") with
                {
                    Address = reference.Address,
                    Help = reference.Reason == UnresolvedReason.OutOfReach
                        ? "Modules lie within 2 GiB of their kernel: is this the address of this module, and of this kernel without KASLR?"
                        : "Is this the kernel the module was built for? A kernel without symbols needs a System.map.",
                };
                return false;
            }
        }

        error = null;
        return true;
    }

    private static bool Before(ulong place, VirtualAddress address, long length) =>
        place < address.Value || place - address.Value < (ulong)length;

    private static string Say(UnresolvedReason reason) => reason switch
    {
        UnresolvedReason.UnknownSymbol => "which neither it nor the kernel has",
        UnresolvedReason.OutOfReach => "which is out of reach",
        _ => "in a way that is not known",
    };

    private int LowerBound(ulong address)
    {
        int low = 0;
        int high = _unresolved.Length;
        while (low < high)
        {
            int middle = low + ((high - low) / 2);
            if (_unresolved[middle].Address < address)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low;
    }
}
