using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace PvPatch.Mechanisms;

/// <summary>A small hash table from a site's decision key to a number: what a plan asks a hundred thousand times for a few hundred answers.</summary>
internal sealed class DecisionCache
{
    private const int FirstBits = 9;

    private Place[] _places = new Place[1 << FirstBits];
    private int _shift = 64 - FirstBits;
    private int _count;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TryGet(ulong key, out int value)
    {
        // The array's length is the power of two that the hash is cut to.
        ref Place place = ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(_places), Hash(key));
        value = place.Value - 1;
        return place.Key == key && value >= 0 || TryGetFurther(key, out value);
    }

    public void Add(ulong key, int value)
    {
        // A quarter full at most: nearly every key is found at the first place, which is what the processor bets on.
        if (_count * 2 >= _places.Length)
        {
            Grow();
        }

        Insert(key, value + 1);
        _count++;
    }

    // Fibonacci hashing: only the product's uppermost bits depend on all of the key's, and on the upper half of it too little.
    private int Hash(ulong key) => (int)((key ^ key >> 32) * 0x9e3779b97f4a7c15 >> _shift);

    private bool TryGetFurther(ulong key, out int value)
    {
        int mask = _places.Length - 1;
        for (int i = Hash(key); _places[i].Value != 0; i = (i + 1) & mask)
        {
            if (_places[i].Key == key)
            {
                value = _places[i].Value - 1;
                return true;
            }
        }

        value = 0;
        return false;
    }

    private void Insert(ulong key, int stored)
    {
        int mask = _places.Length - 1;
        int i = Hash(key);
        while (_places[i].Value != 0)
        {
            i = (i + 1) & mask;
        }

        _places[i] = new Place { Key = key, Value = stored };
    }

    private void Grow()
    {
        Place[] places = _places;
        _places = new Place[places.Length * 2];
        _shift--;
        foreach (Place place in places)
        {
            if (place.Value != 0)
            {
                Insert(place.Key, place.Value);
            }
        }
    }

    private struct Place
    {
        public ulong Key;
        public int Value; // value + 1; 0 is empty
    }
}
