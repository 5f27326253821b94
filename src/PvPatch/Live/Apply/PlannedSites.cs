using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>The bytes that a site is to hold.</summary>
internal struct SiteWrite
{
    /// <summary>The new bytes.</summary>
    public SiteBytes New;

    /// <summary>Index of the site's outcome, which names the site.</summary>
    public int Outcome;

    /// <summary>How many bytes.</summary>
    public byte Length;
}

/// <summary>A site longer than 16 bytes, to be written while nobody is in it.</summary>
internal readonly record struct LongWrite(CodeBlock Block, int Site, int Outcome, byte[] Old, byte[] New);

/// <summary>A slot and the function it is to hold.</summary>
internal readonly record struct SlotWrite(int Slot, VirtualAddress Old, VirtualAddress New);

/// <summary>
/// What is decided, in as few bytes as it can be: for every site the outcome, its new bytes where they are others than there are, for every
/// slot its function. Kept from batch to batch
/// for its arrays. How a site is written is no part of it, and nothing here writes code that can run.
/// </summary>
internal sealed class PlannedSites
{
    // Arrays up to this length are kept for the next batch; a switch of all sites must not leave its arrays behind for good.
    private const int KeptLength = 1024;

    private OutcomeRecord[] _outcomes = new OutcomeRecord[64];
    private SiteWrite[] _writes = new SiteWrite[64];
    private int _outcomeCount;
    private int _writeCount;

    public List<CodeBlock> Blocks { get; } = [];

    /// <summary>Every slot that is set, those too that hold the function already.</summary>
    public List<SlotWrite> Slots { get; } = [];

    public List<LongWrite> LongWrites { get; } = [];

    /// <summary>The sites that are to be linked, by outcome, and their targets.</summary>
    public List<(int Outcome, VirtualAddress Target)> Links { get; } = [];

    /// <summary>
    /// The sites, by outcome, whose island has no place yet: their displacement is zero. Only where nothing is to be placed.
    /// </summary>
    public List<int> Unplaced { get; } = [];

    /// <summary>What each slot is switched to when all is written.</summary>
    public BackendBinding?[] After { get; set; } = [];

    public Span<SiteWrite> Writes => _writes.AsSpan(0, _writeCount);

    public Span<OutcomeRecord> Outcomes => _outcomes.AsSpan(0, _outcomeCount);

    public int OutcomeCount => _outcomeCount;

    public void Clear()
    {
        Blocks.Clear();
        Slots.Clear();
        LongWrites.Clear();
        Links.Clear();
        Unplaced.Clear();
        _outcomeCount = 0;
        _writeCount = 0;
        _outcomes = _outcomes.Length <= KeptLength ? _outcomes : new OutcomeRecord[KeptLength];
        _writes = _writes.Length <= KeptLength ? _writes : new SiteWrite[KeptLength];
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

    /// <summary>Notes new bytes for the site whose outcome was added last.</summary>
    public void AddWrite(SiteBytes bytes, int length)
    {
        if (_writeCount == _writes.Length)
        {
            Array.Resize(ref _writes, _writeCount * 2);
        }

        ref SiteWrite write = ref _writes[_writeCount++];
        write.New = bytes;
        write.Outcome = _outcomeCount - 1;
        write.Length = (byte)length;
    }

    public LiveSite SiteOf(int outcome) => new(Blocks[_outcomes[outcome].Block], _outcomes[outcome].Site);

    /// <summary>Marks all sites that were to be written.</summary>
    public void MarkWrites(SiteChange change)
    {
        foreach (ref SiteWrite write in Writes)
        {
            _outcomes[write.Outcome].Change = change;
        }

        foreach (LongWrite write in LongWrites)
        {
            _outcomes[write.Outcome].Change = change;
        }
    }

    /// <summary>Makes the records say what the sites hold now, and counts.</summary>
    public void Publish(LinkLedger ledger, BatchReport report)
    {
        ledger.Publish(this);
        foreach (ref SiteWrite write in Writes)
        {
            ref OutcomeRecord outcome = ref _outcomes[write.Outcome];
            Blocks[outcome.Block].SetBytes(outcome.Site, write.New);
            Count(ref outcome, report);
        }

        foreach (LongWrite write in LongWrites)
        {
            write.Block.SetLongBytes(write.Site, write.New);
            Count(ref _outcomes[write.Outcome], report);
        }

        foreach (ref OutcomeRecord outcome in Outcomes)
        {
            Blocks[outcome.Block].Records[outcome.Site].Set(outcome.State, outcome.Form, outcome.Action, outcome.Reason);
        }
    }

    /// <summary>Marks as faulted what could not be taken back.</summary>
    public void PublishFaults(LinkLedger ledger)
    {
        ledger.PublishFaults(this);
        foreach (ref OutcomeRecord outcome in Outcomes)
        {
            if (outcome.Change == SiteChange.Faulted)
            {
                Blocks[outcome.Block].Records[outcome.Site].State = LiveSiteState.Faulted;
            }
        }
    }

    private static void Count(ref OutcomeRecord outcome, BatchReport report)
    {
        // Left to the slot by the backend is what was asked for; for any other reason it is what could not be helped.
        bool helpless = outcome.Form == LiveForm.Original && outcome.Reason is not (Plans.PatchReason.None or Plans.PatchReason.BackendDeclines);
        outcome.Change = helpless ? SiteChange.MadeIndirect : SiteChange.Written;
        report.MadeIndirect += helpless ? 1 : 0;
        report.Written += helpless ? 0 : 1;
    }
}
