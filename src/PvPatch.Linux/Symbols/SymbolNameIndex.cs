using System.Numerics;

namespace PvPatch.Linux.Symbols;

/// <summary>
/// From name to symbols: chains of symbols whose names have the same hash, in the order of addresses. Names are not kept; they are
/// decoded again to be compared. Four bytes a symbol for the chain, two to four for the heads.
/// </summary>
/// <remarks>
/// Making it compares no names, so a listing with the same name a million times takes no longer than another; the hash is seeded
/// per process, so chains cannot be made long on purpose.
/// </remarks>
internal sealed class SymbolNameIndex
{
    private readonly SymbolStore _store;
    private readonly int[] _heads;
    private readonly int[] _next;

    public SymbolNameIndex(SymbolStore store)
    {
        _store = store;
        _heads = new int[(int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(store.Count / 2, 16))];
        _next = new int[store.Count];
        Array.Fill(_heads, -1);
        Span<byte> scratch = stackalloc byte[SymbolStore.ScratchSize];

        // Backwards, each in front of the last: a chain then runs from the lowest address up.
        for (int i = store.Count - 1; i >= 0; i--)
        {
            ref int head = ref _heads[Bucket(store.GetName(i, scratch))];
            _next[i] = head;
            head = i;
        }
    }

    /// <summary>The symbols of a name by ascending address.</summary>
    public IEnumerable<int> FindAll(byte[] name)
    {
        for (int i = Skip(_heads[Bucket(name)], name); i >= 0; i = Skip(_next[i], name))
        {
            yield return i;
        }
    }

    /// <summary>The first symbol of this name in what is left of a chain; -1 where there is none.</summary>
    private int Skip(int i, ReadOnlySpan<byte> name)
    {
        Span<byte> scratch = stackalloc byte[SymbolStore.ScratchSize];
        while (i >= 0 && !_store.GetName(i, scratch).SequenceEqual(name))
        {
            i = _next[i];
        }

        return i;
    }

    private int Bucket(ReadOnlySpan<byte> name)
    {
        var hash = new HashCode();
        hash.AddBytes(name);
        return hash.ToHashCode() & (_heads.Length - 1);
    }
}
