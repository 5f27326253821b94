namespace PvPatch.Linux.Symbols;

/// <summary>
/// Symbols in the order of their addresses, in whatever form keeps them small. Equal addresses keep the order of the source.
/// </summary>
internal abstract class SymbolStore
{
    /// <summary>No name of any source is longer; scratch buffers of this size do.</summary>
    public const int MaxNameLength = 4096;

    public abstract int Count { get; }

    public abstract ulong GetAddress(int index);

    public abstract char GetType(int index);

    /// <summary>The bytes of a name, either those of the source or decoded into <paramref name="scratch"/>.</summary>
    public abstract ReadOnlySpan<byte> GetName(int index, Span<byte> scratch);

    public string GetName(int index)
    {
        Span<byte> scratch = stackalloc byte[MaxNameLength];
        return System.Text.Encoding.UTF8.GetString(GetName(index, scratch));
    }

    /// <summary>The index of the first symbol at or behind an address; <see cref="Count"/> where there is none.</summary>
    public int LowerBound(ulong address)
    {
        int low = 0;
        int high = Count;
        while (low < high)
        {
            int middle = low + ((high - low) / 2);
            if (GetAddress(middle) < address)
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
