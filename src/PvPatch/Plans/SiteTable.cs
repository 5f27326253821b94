using System.Collections;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace PvPatch.Plans;

/// <summary>All sites of some code, sorted by address and checked: no two share a byte, none is empty or longer than allowed.</summary>
public sealed class SiteTable : IReadOnlyList<PatchSite>
{
    private readonly PatchSite[] _sites;

    private SiteTable(PatchSite[] sites, int[] numbers)
    {
        _sites = sites;
        KindOf = numbers;
        NumberKinds();
    }

    /// <summary>A table without sites.</summary>
    public static SiteTable Empty { get; } = new([], []);

    /// <summary>How many sites there are.</summary>
    public int Count => _sites.Length;

    /// <summary>
    /// A site of each kind, the first. Sites that differ in nothing but the address are of one kind: what is decided for one holds for all.
    /// Kinds are numbered once, in the order of these, so that a plan looks a decision up once for each kind and not for each site.
    /// </summary>
    internal PatchSite[] Kinds { get; private set; }

    /// <summary>The index of the first site of each kind.</summary>
    internal int[] FirstOfKind { get; private set; }

    /// <summary>Number of sites of each kind.</summary>
    internal int[] CountOfKind { get; private set; }

    /// <summary>The number of each site's kind, by the site's index.</summary>
    internal int[] KindOf { get; }

    /// <summary>The sites in order of address.</summary>
    public ReadOnlySpan<PatchSite> Sites => _sites;

    /// <summary>One site.</summary>
    /// <param name="index">Its place in order of address.</param>
    /// <returns>The site.</returns>
    public PatchSite this[int index] => _sites[index];

    /// <summary>Makes a table, or throws.</summary>
    /// <param name="sites">The sites in any order.</param>
    /// <returns>The table.</returns>
    /// <exception cref="PatchException">A site is empty, too long, doubled, or overlaps another.</exception>
    public static SiteTable Create(params ReadOnlySpan<PatchSite> sites) =>
        TryCreate(sites, out SiteTable? table, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? table : throw new PatchException(diagnostics[0]);

    /// <summary>Makes a table where the sites are sound.</summary>
    /// <param name="sites">The sites in any order. <see cref="PatchDiagnostic.SiteIndex"/> counts in this order.</param>
    /// <param name="table">The table, or <see langword="null"/>.</param>
    /// <param name="diagnostics">Every finding (up to a hundred): zero length, too long, duplicate, overlap, end of address space.</param>
    /// <returns>Whether there is a table.</returns>
    public static bool TryCreate(
        ReadOnlySpan<PatchSite> sites, [NotNullWhen(true)] out SiteTable? table, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        var found = new DiagnosticList();
        PatchSite[] sorted = sites.ToArray();
        int[] order = new int[sorted.Length];
        ulong[] keys = new ulong[sorted.Length];
        bool ascending = true;
        for (int i = 0; i < sorted.Length; i++)
        {
            order[i] = i;
            keys[i] = sorted[i].Address.Value;
            ascending &= i == 0 || keys[i - 1] <= keys[i];
            CheckAlone(sorted[i], i, found);
        }

        if (!ascending)
        {
            Array.Sort(keys, order);
            for (int i = 0; i < order.Length; i++)
            {
                sorted[i] = sites[order[i]];
            }
        }

        for (int i = 1; i < sorted.Length; i++)
        {
            CheckPair(sorted[i - 1], order[i - 1], sorted[i], order[i], found);
        }

        table = found.HasErrors ? null : new SiteTable(sorted, numbers: order); // the order is not needed any more
        diagnostics = found.ToList();
        return table is not null;
    }

    /// <summary>Enumerates the sites in order of address.</summary>
    /// <returns>The enumerator.</returns>
    public IEnumerator<PatchSite> GetEnumerator() => ((IEnumerable<PatchSite>)_sites).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>Finds the site that begins at an address.</summary>
    /// <param name="address">The run address.</param>
    /// <returns>Its index, or -1.</returns>
    public int IndexOf(VirtualAddress address)
    {
        int index = IndexContaining(address);
        return index >= 0 && _sites[index].Address == address ? index : -1;
    }

    /// <summary>Finds the site that has a byte at an address.</summary>
    /// <param name="address">The run address.</param>
    /// <returns>Its index, or -1.</returns>
    public int IndexContaining(VirtualAddress address)
    {
        int low = 0;
        int high = _sites.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            PatchSite site = _sites[middle];
            if (address < site.Address)
            {
                high = middle - 1;
            }
            else if (address.Value - site.Address.Value < (ulong)site.Budget)
            {
                return middle;
            }
            else
            {
                low = middle + 1;
            }
        }

        return -1;
    }

    /// <summary>Whether some site has a byte of a stretch.</summary>
    internal bool Overlaps(VirtualAddress address, int length)
    {
        // The first site that ends behind the stretch's first byte.
        int low = 0;
        int high = _sites.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (_sites[middle].Address.Value + (ulong)(_sites[middle].Budget - 1) < address.Value)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low < _sites.Length && (_sites[low].Address <= address || _sites[low].Address - address < length);
    }

    private static void CheckAlone(PatchSite site, int index, DiagnosticList found)
    {
        if (site.Budget == 0)
        {
            found.Add(At(DiagnosticCodes.SiteZeroLength, "the site has length 0", site, index) with
            {
                Expected = $"1 to {PatchSite.MaxBudget} bytes",
                Help = "Drop the record, or read the table with the stride it was written with.",
            });
        }
        else if (site.Budget > PatchSite.MaxBudget)
        {
            found.Add(At(DiagnosticCodes.SiteTooLong, "the site is longer than a site may be", site, index) with
            {
                Found = $"{site.Budget} bytes",
                Expected = $"1 to {PatchSite.MaxBudget} bytes",
            });
        }
        else if (site.Address.Value + (ulong)(site.Budget - 1) < site.Address.Value)
        {
            found.Add(At(DiagnosticCodes.SiteWraps, "the site runs over the end of the address space", site, index));
        }
    }

    private static void CheckPair(PatchSite before, int beforeIndex, PatchSite site, int index, DiagnosticList found)
    {
        if (before.Address == site.Address)
        {
            found.Add(At(DiagnosticCodes.SiteDuplicate, $"the site has the address of site {beforeIndex}", site, index) with
            {
                Found = $"slots {before.Slot} and {site.Slot}",
                Expected = "one record for each address",
            });
        }
        else if (site.Address.Value - before.Address.Value < (ulong)before.Budget)
        {
            found.Add(At(DiagnosticCodes.SiteOverlap, $"the site overlaps site {beforeIndex}", site, index) with
            {
                Found = $"{before.Address}+{before.Budget} and {site.Address}+{site.Budget}",
                Expected = "sites that share no byte",
            });
        }
    }

    private static PatchDiagnostic At(string code, string message, PatchSite site, int index) =>
        PatchDiagnostic.Error(code, message) with { SiteIndex = index, Address = site.Address };

    /// <summary>Numbers the kinds.</summary>
    [MemberNotNull(nameof(Kinds), nameof(FirstOfKind), nameof(CountOfKind))]
    private void NumberKinds()
    {
        ReadOnlySpan<PatchSite> sites = _sites;
        int[] numbers = KindOf;

        // A hash table from keys to numbers from 1 on, a quarter full at most: nearly every key is at its first place, which is what the
        // processor bets on.
        int bits = 8;
        ulong[] keys = new ulong[1 << bits];
        int[] places = new int[1 << bits];
        var first = new List<int>();
        for (int i = 0; i < sites.Length; i++)
        {
            int at = Place(keys, places, bits, sites[i].DecisionKey);
            if (places[at] == 0)
            {
                first.Add(i);
                (keys[at], places[at]) = (sites[i].DecisionKey, first.Count);
                numbers[i] = first.Count - 1;
                if (first.Count << 2 > keys.Length)
                {
                    bits += 2;
                    (keys, places) = (new ulong[1 << bits], new int[1 << bits]);
                    for (int kind = 0; kind < first.Count; kind++)
                    {
                        ulong key = sites[first[kind]].DecisionKey;
                        int to = Place(keys, places, bits, key);
                        (keys[to], places[to]) = (key, kind + 1);
                    }
                }

                continue;
            }

            numbers[i] = places[at] - 1;
        }

        var kinds = new PatchSite[first.Count];
        for (int i = 0; i < kinds.Length; i++)
        {
            kinds[i] = sites[first[i]];
        }

        Kinds = kinds;
        FirstOfKind = [.. first];
        CountOfKind = new int[kinds.Length];
        foreach (int kind in numbers)
        {
            CountOfKind[kind]++;
        }
    }

    /// <summary>Where a key is, or the empty place where it belongs.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int Place(ulong[] keys, int[] places, int bits, ulong key)
    {
        // Fibonacci hashing: only the product's uppermost bits depend on all of the key's, and on the upper half of it too little.
        int at = (int)((key ^ key >> 32) * 0x9e3779b97f4a7c15 >> (64 - bits));
        while (places[at] != 0 && keys[at] != key)
        {
            at = (at + 1) & (keys.Length - 1);
        }

        return at;
    }
}
