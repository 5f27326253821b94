using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>What many live sites share: slot, budget, clobbers and traits, under one number. And what all sites of a slot allow together.</summary>
internal sealed class SiteKinds
{
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, int> _numbers = [];
    private readonly RegisterSet[] _allowed;
    private PatchSite[] _kinds = new PatchSite[16];

    public SiteKinds(int slots)
    {
        _allowed = new RegisterSet[slots];
        Array.Fill(_allowed, RegisterSet.All);
    }

    public int Count { get; private set; }

    /// <summary>A kind, as a site at address 0.</summary>
    public PatchSite this[int kind] => _kinds[kind];

    /// <summary>What every site of a slot allows to be destroyed.</summary>
    public RegisterSet AllowedBy(int slot) => _allowed[slot];

    /// <summary>The number of a site's kind; a new one where there is none yet.</summary>
    /// <param name="site">The site.</param>
    /// <param name="narrows">Whether its slot's function may now destroy less than before.</param>
    public int NumberOf(PatchSite site, out bool narrows)
    {
        lock (_lock)
        {
            narrows = false;
            if (_numbers.TryGetValue(site.DecisionKey, out int number))
            {
                return number;
            }

            if (Count == _kinds.Length)
            {
                Array.Resize(ref _kinds, Count * 2);
            }

            number = Count;
            _kinds[number] = new PatchSite(VirtualAddress.Zero, site.Slot, site.Budget, site.Clobbers, site.Traits);
            _numbers.Add(site.DecisionKey, number);
            Count++;
            RegisterSet allowed = _allowed[site.Slot] & site.Clobbers;
            narrows = allowed != _allowed[site.Slot];
            _allowed[site.Slot] = allowed;
            return number;
        }
    }
}
