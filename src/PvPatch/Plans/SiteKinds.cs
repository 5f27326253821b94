using System.Runtime.CompilerServices;

namespace PvPatch.Plans;

/// <summary>
/// The sites of a table that differ in nothing but their address are one kind: what is decided for the first of them holds for all. The table numbers
/// its kinds once, so that a plan looks a decision up once for each kind and not for each site.
/// </summary>
internal sealed class SiteKinds
{
    private SiteKinds(int[] ofSite, PatchSite[] kinds, int[] first)
    {
        OfSite = ofSite;
        Kinds = kinds;
        First = first;
    }

    /// <summary>The number of each site's kind, by the site's index.</summary>
    public int[] OfSite { get; }

    /// <summary>The first site of each kind; kinds are numbered in the order of these.</summary>
    public PatchSite[] Kinds { get; }

    /// <summary>The index of the first site of each kind.</summary>
    public int[] First { get; }

    /// <summary>Numbers the kinds of sites.</summary>
    /// <param name="sites">The sites in order.</param>
    /// <param name="numbers">Room for a number for each; becomes <see cref="OfSite"/>.</param>
    public static SiteKinds Of(ReadOnlySpan<PatchSite> sites, int[] numbers)
    {
        var known = new KeyTable();
        var first = new List<int>();
        for (int i = 0; i < sites.Length; i++)
        {
            ref int place = ref known.NumberOf(sites[i].DecisionKey);
            if (place == 0)
            {
                first.Add(i);
                place = first.Count;
                numbers[i] = place - 1;
                known.Grown();
                continue;
            }

            numbers[i] = place - 1;
        }

        var kinds = new PatchSite[first.Count];
        for (int i = 0; i < kinds.Length; i++)
        {
            kinds[i] = sites[first[i]];
        }

        return new SiteKinds(numbers, kinds, [.. first]);
    }

    /// <summary>A hash table from keys to numbers, a quarter full at most: nearly every key is at its first place, which is what the processor bets on.</summary>
    private sealed class KeyTable
    {
        private const int FirstBits = 8;
        private const int Fullness = 4;

        private Place[] _places = new Place[1 << FirstBits];
        private int _shift = 64 - FirstBits;
        private int _count;

        /// <summary>The number of a key; 0 where it was not there, to be set.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public ref int NumberOf(ulong key)
        {
            Place[] places = _places;
            // Fibonacci hashing: only the product's uppermost bits depend on all of the key's, and on the upper half of it too little.
            int i = (int)((key ^ key >> 32) * 0x9e3779b97f4a7c15 >> _shift);
            while (places[i].Number != 0 && places[i].Key != key)
            {
                i = (i + 1) & (places.Length - 1);
            }

            places[i].Key = key;
            return ref places[i].Number;
        }

        /// <summary>Says that a number was set which was 0.</summary>
        public void Grown()
        {
            if (++_count * Fullness <= _places.Length)
            {
                return;
            }

            Place[] before = _places;
            _places = new Place[before.Length * Fullness];
            _shift -= 2; // four times as many
            foreach (Place place in before)
            {
                if (place.Number != 0)
                {
                    NumberOf(place.Key) = place.Number;
                }
            }
        }

        private struct Place
        {
            public ulong Key;
            public int Number; // 0 is empty
        }
    }
}
