namespace PvPatch.Planning;

/// <summary>A small hash table from a site's decision key to a number: what a plan asks a hundred thousand times for a few hundred answers.</summary>
internal sealed class DecisionCache
{
    private ulong[] _keys = new ulong[256];
    private int[] _values = new int[256]; // value + 1; 0 is empty
    private int _count;

    public bool TryGet(ulong key, out int value)
    {
        int mask = _keys.Length - 1;
        for (int i = Hash(key) & mask; _values[i] != 0; i = (i + 1) & mask)
        {
            if (_keys[i] == key)
            {
                value = _values[i] - 1;
                return true;
            }
        }

        value = 0;
        return false;
    }

    public void Add(ulong key, int value)
    {
        if (_count * 2 >= _keys.Length)
        {
            Grow();
        }

        Insert(key, value + 1);
        _count++;
    }

    // Fibonacci hashing: the keys' fields lie far apart, the product's upper half mixes them.
    private static int Hash(ulong key) => (int)(key * 0x9e3779b97f4a7c15 >> 40);

    private void Insert(ulong key, int stored)
    {
        int mask = _keys.Length - 1;
        int i = Hash(key) & mask;
        while (_values[i] != 0)
        {
            i = (i + 1) & mask;
        }

        _keys[i] = key;
        _values[i] = stored;
    }

    private void Grow()
    {
        (ulong[] keys, int[] values) = (_keys, _values);
        _keys = new ulong[keys.Length * 2];
        _values = new int[keys.Length * 2];
        for (int i = 0; i < keys.Length; i++)
        {
            if (values[i] != 0)
            {
                Insert(keys[i], values[i]);
            }
        }
    }
}
