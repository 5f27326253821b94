using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What many live sites share: slot, budget, clobbers and traits, under one number. And what all sites of a slot allow together.
/// </summary>
internal sealed class SiteKinds
{
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, int> _numbers = [];
    private readonly RegisterSet[] _allowed;
    private PatchSite[] _kinds = new PatchSite[16];

    private int[] _counts = new int[16];

    public SiteKinds(int slots)
    {
        _allowed = new RegisterSet[slots];
        Array.Fill(_allowed, RegisterSet.All);
    }

    public int Count { get; private set; }

    /// <summary>A kind, as a site at address 0.</summary>
    public PatchSite this[int kind] => _kinds[kind];

    /// <summary>What every site of a slot allows to be destroyed; sites of retired blocks too, until no thread can be in them.</summary>
    public RegisterSet AllowedBy(int slot) => _allowed[slot];

    /// <summary>The number of a site's kind; a new one where there is none yet.</summary>
    public int NumberOf(PatchSite site)
    {
        lock (_lock)
        {
            if (_numbers.TryGetValue(site.DecisionKey, out int number))
            {
                return number;
            }

            if (Count == _kinds.Length)
            {
                Array.Resize(ref _counts, Count * 2);
                Array.Resize(ref _kinds, Count * 2);
            }

            number = Count;
            _kinds[number] = new PatchSite(VirtualAddress.Zero, site.Slot, site.Budget, site.Clobbers, site.Traits);
            _numbers.Add(site.DecisionKey, number);
            Count++;
            return number;
        }
    }

    /// <summary>Counts a block's sites.</summary>
    /// <returns>Whether a slot's sites allow less together than before.</returns>
    public bool Add(SiteRecord[] records)
    {
        lock (_lock)
        {
            bool narrows = false;
            foreach (ref SiteRecord record in records.AsSpan())
            {
                if (_counts[record.Kind]++ == 0)
                {
                    PatchSite kind = _kinds[record.Kind];
                    RegisterSet allowed = _allowed[kind.Slot] & kind.Clobbers;
                    narrows |= allowed != _allowed[kind.Slot];
                    _allowed[kind.Slot] = allowed;
                }
            }

            return narrows;
        }
    }

    /// <summary>Takes a block's sites from the count, when no thread can be in them any more or none ever was.</summary>
    public void Remove(SiteRecord[] records)
    {
        lock (_lock)
        {
            foreach (ref SiteRecord record in records.AsSpan())
            {
                if (--_counts[record.Kind] == 0)
                {
                    Widen(_kinds[record.Kind].Slot);
                }
            }
        }
    }

    private void Widen(int slot)
    {
        RegisterSet allowed = RegisterSet.All;
        for (int kind = 0; kind < Count; kind++)
        {
            if (_counts[kind] > 0 && _kinds[kind].Slot == slot)
            {
                allowed &= _kinds[kind].Clobbers;
            }
        }

        _allowed[slot] = allowed;
    }
}
