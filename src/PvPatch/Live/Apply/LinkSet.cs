namespace PvPatch.Live;

/// <summary>The sites that are linked into a block. Most blocks have none or one: 16 bytes. Kept under the ledger's lock.</summary>
internal struct LinkSet
{
    private object? _sites; // the block of the only site, or a set of them all
    private int _index; // of the only site

    /// <summary>How many.</summary>
    public readonly int Count => _sites is HashSet<LiveSite> several ? several.Count : _sites is null ? 0 : 1;

    private readonly LiveSite Only => new((CodeBlock)_sites!, _index);

    public void Add(LiveSite site)
    {
        if (_sites is HashSet<LiveSite> several)
        {
            several.Add(site);
        }
        else if (_sites is null)
        {
            (_sites, _index) = (site.Block, site.Index);
        }
        else if (Only != site)
        {
            _sites = new HashSet<LiveSite> { Only, site };
        }
    }

    public void Remove(LiveSite site)
    {
        if (_sites is HashSet<LiveSite> several)
        {
            several.Remove(site);
            _sites = several.Count == 0 ? null : several;
        }
        else if (_sites is not null && Only == site)
        {
            _sites = null;
        }
    }

    /// <summary>How many of them are in other blocks than those given.</summary>
    public readonly int CountFromOutside(HashSet<CodeBlock> blocks) =>
        _sites is HashSet<LiveSite> several ? several.Count(s => !blocks.Contains(s.Block))
        : _sites is not null && !blocks.Contains(Only.Block) ? 1
        : 0;

    /// <summary>Adds those of some slots, or of any, to a list.</summary>
    public readonly void AddTo(List<LiveSite> sites, SlotTable? slots)
    {
        if (_sites is HashSet<LiveSite> several)
        {
            sites.AddRange(several.Where(s => slots is null || ReferenceEquals(s.Block.Slots, slots)));
        }
        else if (_sites is not null && (slots is null || ReferenceEquals(Only.Block.Slots, slots)))
        {
            sites.Add(Only);
        }
    }
}
