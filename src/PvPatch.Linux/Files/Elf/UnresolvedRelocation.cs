namespace PvPatch.Linux.Files;

/// <summary>Why a relocation could not be done.</summary>
internal enum UnresolvedReason : byte
{
    /// <summary>Nothing has the symbol.</summary>
    UnknownSymbol,

    /// <summary>The value does not fit the field.</summary>
    OutOfReach,

    /// <summary>The relocation is of a type that is not done here.</summary>
    UnknownType,
}

/// <summary>A relocation that could not be done; its place holds what the file holds.</summary>
/// <param name="Address">Run address of the first byte of its place.</param>
/// <param name="Symbol">The index of the symbol it refers to.</param>
/// <param name="Width">The size of its place in bytes.</param>
/// <param name="Reason">Why.</param>
internal readonly record struct UnresolvedRelocation(ulong Address, int Symbol, byte Width, UnresolvedReason Reason);

/// <summary>
/// The relocations of a placed file that could not be done, by address: harmless, unless something that is planned holds one.
/// </summary>
internal sealed class UnresolvedRelocations
{
    // No place is wider; the search begins this far before a range.
    private const int MostWidth = 8;

    private readonly UnresolvedRelocation[] _byAddress;

    public UnresolvedRelocations(List<UnresolvedRelocation> unresolved)
    {
        _byAddress = [.. unresolved];
        Array.Sort(_byAddress, static (a, b) => a.Address.CompareTo(b.Address));
    }

    /// <summary>How many there are.</summary>
    public int Count => _byAddress.Length;

    /// <summary>The first one that has a byte of a range.</summary>
    /// <param name="address">The range's first address.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="found">The relocation.</param>
    public bool TryFind(VirtualAddress address, long length, out UnresolvedRelocation found)
    {
        ulong first = address.Value - Math.Min(address.Value, MostWidth);
        for (int i = LowerBound(first); length > 0 && i < _byAddress.Length && Before(_byAddress[i].Address, address, length); i++)
        {
            found = _byAddress[i];
            if (found.Address >= address.Value || address.Value - found.Address < found.Width)
            {
                return true;
            }
        }

        found = default;
        return false;
    }

    private static bool Before(ulong place, VirtualAddress address, long length) =>
        place < address.Value || place - address.Value < (ulong)length;

    private int LowerBound(ulong address)
    {
        int low = 0;
        int high = _byAddress.Length;
        while (low < high)
        {
            int middle = low + ((high - low) / 2);
            if (_byAddress[middle].Address < address)
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
