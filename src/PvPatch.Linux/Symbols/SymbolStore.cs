using PvPatch.Linux.Symbols.Kallsyms;

namespace PvPatch.Linux.Symbols;

/// <summary>
/// Symbols in the order of their addresses, in whatever form keeps them small. Equal addresses keep the order of the source.
/// </summary>
internal abstract class SymbolStore
{
    /// <summary>No name of a listing or symbol table is longer.</summary>
    public const int MaxNameLength = 4096;

    /// <summary>
    /// The size of the buffer that <see cref="GetName(int, Span{byte})"/> is given: room for a name that has to be decoded.
    /// </summary>
    public const int ScratchSize = KallsymsTokens.MaxNameLength;

    public abstract int Count { get; }

    /// <summary>
    /// Whether bytes are a name: printable ASCII without blanks. No kernel has others, and so every name comes back from a string as it
    /// was, and none upsets a terminal.
    /// </summary>
    public static bool IsName(ReadOnlySpan<byte> bytes) =>
        bytes.Length is > 0 and < MaxNameLength && bytes.IndexOfAnyExceptInRange((byte)'!', (byte)'~') < 0;

    public abstract ulong GetAddress(int index);

    public abstract char GetType(int index);

    /// <summary>The bytes of a name, either those of the source or decoded into <paramref name="scratch"/>.</summary>
    public abstract ReadOnlySpan<byte> GetName(int index, Span<byte> scratch);

    public string GetName(int index)
    {
        Span<byte> scratch = stackalloc byte[ScratchSize];
        return System.Text.Encoding.ASCII.GetString(GetName(index, scratch));
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
