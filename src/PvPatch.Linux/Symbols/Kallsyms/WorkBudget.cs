namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>
/// The steps a search may take. Real images need a few per byte searched; one made to look like tables everywhere must not keep
/// the search busy for hours.
/// </summary>
internal sealed class WorkBudget(long steps)
{
    private long _left = steps;

    public bool IsSpent => _left <= 0;

    /// <summary>Takes steps off; false once none are left.</summary>
    public bool TrySpend(long steps)
    {
        _left -= steps;
        return _left > 0;
    }
}
