namespace PvPatch.Live;

/// <summary>Pieces of code smaller than a block, packed into pages of their own: what is written here shares no line with code that is running.</summary>
internal sealed class StubAllocator(ArenaMemory memory)
{
    /// <summary>A piece begins at a multiple of this: a branch target in a fetch window of its own.</summary>
    public const int Alignment = 16;

    private const int PageSize = 4096;

    private readonly List<(VirtualAddress Address, ArenaSpace Space)> _pages = [];
    private bool _anyUsedBefore; // a page that held blocks, or a piece given back
    private bool _reused;

    /// <summary>Takes room for a piece of at most 1 KiB.</summary>
    public bool TryTake(int length, out VirtualAddress address, out PatchDiagnostic? error)
    {
        error = null;
        for (int i = _pages.Count - 1; i >= 0; i--)
        {
            (VirtualAddress page, ArenaSpace space) = _pages[i];
            if (space.Free >= length && space.TryTake(length, Alignment, out long offset))
            {
                _reused |= _anyUsedBefore;
                address = page + offset;
                return true;
            }

            if (i < _pages.Count - 4)
            {
                break; // older pages are full but for crumbs
            }
        }

        if (!memory.TryTakeCode(PageSize, SiteClassifier.LineSize, out address, out bool reused, out error))
        {
            return false;
        }

        _anyUsedBefore |= reused;
        _reused |= _anyUsedBefore;
        _pages.Add((address, new ArenaSpace(0, PageSize - ArenaMemory.Slack)));
        return _pages[^1].Space.TryTake(length, Alignment, out _);
    }

    /// <summary>
    /// Whether a piece may have been taken where other code stood before, since the last time this was asked: then another processor may still be reading ahead there.
    /// </summary>
    public bool TakeReused()
    {
        bool reused = _reused;
        _reused = false;
        return reused;
    }

    /// <summary>Gives a piece back. Nobody may be inside it.</summary>
    public void Give(VirtualAddress address, int length)
    {
        foreach ((VirtualAddress page, ArenaSpace space) in _pages)
        {
            if (address >= page && address.Value - page.Value < PageSize)
            {
                memory.Span(address, length).Fill(0xcc);
                space.Give(address - page, length);
                _anyUsedBefore = true;
                return;
            }
        }
    }
}
