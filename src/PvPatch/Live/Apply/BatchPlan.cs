using System.Diagnostics;

namespace PvPatch.Live;

/// <summary>What a batch is about.</summary>
internal sealed record BatchRequest
{
    /// <summary>For reports.</summary>
    public required string Target { get; init; }

    public required SwitchOptions Options { get; init; }

    /// <summary>What the sites of all slots are to do; nothing where <see cref="PerSlot"/> says it, or where they shall hold their original bytes.</summary>
    public BackendBinding? Binding { get; init; }

    /// <summary>What the sites of each slot are to do; nothing for a slot that is not bound.</summary>
    public BackendBinding?[]? PerSlot { get; init; }

    /// <summary>What the slots hold functions of now, for requests that do not set them.</summary>
    public BackendBinding?[]? Bound { get; init; }

    /// <summary>Whether sites get their original bytes.</summary>
    public bool Revert { get; init; }

    /// <summary>Whether slots get the binding's functions.</summary>
    public bool SetsSlots { get; init; }

    /// <summary>The only slot concerned; -1 for all.</summary>
    public int OnlySlot { get; init; } = -1;

    /// <summary>The only sites concerned.</summary>
    public IReadOnlyList<LiveSite>? OnlySites { get; init; }

    /// <summary>The only blocks concerned.</summary>
    public IReadOnlyList<CodeBlock>? OnlyBlocks { get; init; }

    /// <summary>Sites and the targets they shall have for themselves.</summary>
    public IReadOnlyList<SiteLink>? Links { get; init; }

    /// <summary>Blocks that no link shall lead into.</summary>
    public IReadOnlyList<CodeBlock>? UnlinkedFrom { get; init; }

    /// <summary>What makes the bodies of links.</summary>
    public LinkBodies? LinkBodies { get; init; }

    /// <summary>Whether a linked site in the scope is linked no more.</summary>
    public bool OverridesLinks => Revert || OnlySites is not null || Options.OverridesLinks;

    /// <summary>The blocks the request names, which must be this patcher's and alive.</summary>
    public IEnumerable<CodeBlock?> NamedBlocks => OnlyBlocks ?? OnlySites?.Select(static s => s.Block) ?? Links?.Select(static l => l.Site.Block) ?? [];

    /// <summary>Whether an indirect site of a slot does what is asked for.</summary>
    public bool SlotServes(int slot) => SetsSlots || Revert || ReferenceEquals(Bound?[slot], BindingOf(slot));

    /// <summary>What the sites of a slot are to do.</summary>
    public BackendBinding? BindingOf(int slot) => Binding ?? PerSlot?[slot];
}

/// <summary>A batch, decided: every site's new bytes, every slot's new function. Kept from batch to batch for its arrays. Nothing here writes code that can run.</summary>
internal sealed class BatchPlan
{
    // Arrays up to this length are kept for the next batch; a switch of all sites must not leave its arrays behind for good.
    private const int KeptLength = 1024;

    private readonly List<CodeBlock> _blocks = [];
    private OutcomeRecord[] _outcomes = new OutcomeRecord[64];
    private PlannedWrite[] _writes = new PlannedWrite[64];
    private int _outcomeCount;
    private int _writeCount;

    public List<CodeBlock> Blocks => _blocks;

    public List<SlotWrite> Slots { get; } = [];

    public List<LongWrite> LongWrites { get; } = [];

    public Span<PlannedWrite> Writes => _writes.AsSpan(0, _writeCount);

    public Span<OutcomeRecord> Outcomes => _outcomes.AsSpan(0, _outcomeCount);

    public int OutcomeCount => _outcomeCount;

    public void Clear()
    {
        _blocks.Clear();
        Slots.Clear();
        LongWrites.Clear();
        _outcomeCount = 0;
        _writeCount = 0;
        _outcomes = _outcomes.Length <= KeptLength ? _outcomes : new OutcomeRecord[KeptLength];
        _writes = _writes.Length <= KeptLength ? _writes : new PlannedWrite[KeptLength];
    }

    public ref OutcomeRecord AddOutcome(int block, int site)
    {
        if (_outcomeCount == _outcomes.Length)
        {
            Array.Resize(ref _outcomes, _outcomeCount * 2);
        }

        ref OutcomeRecord outcome = ref _outcomes[_outcomeCount++];
        outcome = new OutcomeRecord { Block = block, Site = site };
        return ref outcome;
    }

    public ref PlannedWrite AddWrite()
    {
        if (_writeCount == _writes.Length)
        {
            Array.Resize(ref _writes, _writeCount * 2);
        }

        return ref _writes[_writeCount++];
    }

    /// <summary>Marks all sites that were to be written.</summary>
    public void MarkWrites(SiteChange change)
    {
        foreach (ref PlannedWrite write in Writes)
        {
            _outcomes[write.Outcome].Change = change;
        }

        foreach (LongWrite write in LongWrites)
        {
            _outcomes[write.Outcome].Change = change;
        }
    }

    /// <summary>Makes the records say what the sites hold now.</summary>
    /// <param name="ledger">Where links are counted.</param>
    /// <param name="links">Whether the batch makes links.</param>
    public void Publish(LinkLedger ledger, bool links)
    {
        if (ledger.Count > 0)
        {
            ForEachOutcome(static (site, outcome) => site.Record.State == SiteState.Linked && outcome.Change != SiteChange.KeptLink, ledger.Remove);
        }

        foreach (ref PlannedWrite write in Writes)
        {
            ref OutcomeRecord outcome = ref _outcomes[write.Outcome];
            _blocks[outcome.Block].SetBytes(outcome.Site, write.New);
        }

        foreach (LongWrite write in LongWrites)
        {
            write.Block.SetLongBytes(write.Site, write.New);
        }

        foreach (ref OutcomeRecord outcome in Outcomes)
        {
            ref SiteRecord record = ref _blocks[outcome.Block].Records[outcome.Site];
            record.Set(outcome.State, outcome.Form, outcome.Action, outcome.Reason);
        }

        if (links)
        {
            ForEachOutcome(static (_, outcome) => outcome.State == SiteState.Linked, ledger.Add);
        }
    }

    /// <summary>Marks as faulted what could not be taken back.</summary>
    public void PublishFaults(LinkLedger ledger)
    {
        ForEachOutcome(static (site, outcome) => outcome.Change == SiteChange.Faulted && site.Record.State == SiteState.Linked, ledger.Remove);
        foreach (ref OutcomeRecord outcome in Outcomes)
        {
            if (outcome.Change == SiteChange.Faulted)
            {
                _blocks[outcome.Block].Records[outcome.Site].State = SiteState.Faulted;
            }
        }
    }

    private void ForEachOutcome(Func<LiveSite, OutcomeRecord, bool> which, Action<LiveSite> action)
    {
        foreach (OutcomeRecord outcome in Outcomes)
        {
            var site = new LiveSite(_blocks[outcome.Block], outcome.Site);
            if (which(site, outcome))
            {
                action(site);
            }
        }
    }

    public SwitchResult ToResult(SwitchStatus status, BatchReport report)
    {
        Debug.Assert(status != SwitchStatus.Applied || !report.HasErrors, "a batch with errors does not succeed");
        return new SwitchResult(status, report, [.. _blocks], Outcomes.ToArray());
    }
}
