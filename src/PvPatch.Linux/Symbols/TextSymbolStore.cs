namespace PvPatch.Linux.Symbols;

/// <summary>Symbols out of a listing: address and place of the name per symbol, and all types and names in one piece.</summary>
internal sealed class TextSymbolStore : SymbolStore
{
    private readonly ulong[] _addresses;
    private readonly int[] _starts;
    private readonly byte[] _names;

    /// <summary>Takes the arrays over and sorts them.</summary>
    /// <param name="addresses">One for each symbol.</param>
    /// <param name="starts">Where in <paramref name="names"/> each symbol's type letter is; its name follows, then a NUL.</param>
    /// <param name="names">Type letters and names.</param>
    public TextSymbolStore(ulong[] addresses, int[] starts, byte[] names)
    {
        _addresses = addresses;
        _starts = starts;
        _names = names;

        // The starts ascend, so with them as second key the order of the listing stays within an address.
        for (int i = 1; i < addresses.Length; i++)
        {
            if (addresses[i] < addresses[i - 1])
            {
                Sort(addresses, starts);
                break;
            }
        }
    }

    public override int Count => _addresses.Length;

    public override ulong GetAddress(int index) => _addresses[index];

    public override char GetType(int index) => (char)_names[_starts[index]];

    public override ReadOnlySpan<byte> GetName(int index, Span<byte> scratch)
    {
        ReadOnlySpan<byte> rest = _names.AsSpan(_starts[index] + 1);
        return rest[..rest.IndexOf((byte)0)];
    }

    private static void Sort(ulong[] addresses, int[] starts)
    {
        var order = new (ulong Address, int Start)[addresses.Length];
        for (int i = 0; i < order.Length; i++)
        {
            order[i] = (addresses[i], starts[i]);
        }

        Array.Sort(order, static (a, b) => a.Address == b.Address ? a.Start.CompareTo(b.Start) : a.Address.CompareTo(b.Address));
        for (int i = 0; i < order.Length; i++)
        {
            (addresses[i], starts[i]) = order[i];
        }
    }
}
