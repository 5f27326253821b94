using System.Runtime.CompilerServices;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What is decided for one site, and what becomes of it: 16 bytes. What it is to hold is kept apart, for the sites that are written: often
/// most sites of a batch are not.
/// </summary>
internal struct PlannedSite
{
    /// <summary>Index of its block in <see cref="PlannedSites.Blocks"/>.</summary>
    public int Block;

    /// <summary>Its place in the block.</summary>
    public int Site;

    /// <summary>What it becomes when all is well.</summary>
    public LiveForm Form;
    public LiveSiteState State;

    // Public enums are int.
    private byte _action;
    private byte _reason;

    public SiteChange Change;

    /// <summary>Whether it holds other bytes than it is to hold (<see cref="PlannedSites.NewOf"/>), and is to be written.</summary>
    public bool IsWrite;

    /// <summary>Whether its island has no place yet: its displacement is zero. Only where nothing is to be placed.</summary>
    public bool IsUnplaced;

    /// <summary>Its length in bytes; 0 where it is longer than 16.</summary>
    public byte Length;

    public PatchAction Action
    {
        readonly get => (PatchAction)_action;
        set => _action = (byte)value;
    }

    public PatchReason Reason
    {
        readonly get => (PatchReason)_reason;
        set => _reason = (byte)value;
    }

    /// <summary>Makes it the emitted call, for a reason.</summary>
    public void MakeIndirect(PatchReason reason)
    {
        Form = LiveForm.Original;
        Action = PatchAction.LeaveAlone;
        Reason = reason;
        IsUnplaced = false;
    }
}

/// <summary>A slot and the function it is to hold.</summary>
internal readonly record struct SlotWrite(int Slot, VirtualAddress Old, VirtualAddress New);

/// <summary>
/// What is decided: for every site its new bytes and the outcome, for every slot its function. Kept from batch to batch for its arrays.
/// How a site is written is no part of it, and nothing here writes code that can run.
/// </summary>
internal sealed class PlannedSites
{
    // An array up to this length is kept for the next batch; a switch of all sites must not leave its array behind for good.
    private const int KeptLength = 1024;

    private PlannedSite[] _sites = new PlannedSite[64];
    private SiteBytes[] _new = new SiteBytes[64]; // as long; set where a site is to be written
    private int _count;

    public List<CodeBlock> Blocks { get; } = [];

    /// <summary>Every slot that is set, those too that hold the function already.</summary>
    public List<SlotWrite> Slots { get; } = [];

    /// <summary>The table of those slots.</summary>
    public SlotTable? SlotTable { get; set; }

    /// <summary>New bytes of the sites longer than 16 that are to be written, by index.</summary>
    public Dictionary<int, byte[]> LongBytes { get; } = [];

    /// <summary>The sites that are to be linked, by index, and their targets.</summary>
    public List<(int Index, VirtualAddress Target)> Links { get; } = [];

    /// <summary>The settings that get another value when all is written, and that.</summary>
    public List<(LiveSetting Setting, long Value)> Settings { get; } = [];

    /// <summary>What each slot is switched to when all is written.</summary>
    public BackendBinding?[] After { get; set; } = [];

    public Span<PlannedSite> Sites => _sites.AsSpan(0, _count);

    public int Count => _count;

    /// <summary>Whether any site is to be written.</summary>
    public bool AnyWrite { get; private set; }

    /// <summary>Whether any site could not be taken back.</summary>
    public bool AnyFaulted
    {
        get
        {
            bool any = false;
            foreach (ref PlannedSite site in Sites)
            {
                any |= site.Change == SiteChange.Faulted;
            }

            return any;
        }
    }

    public void Clear()
    {
        Blocks.Clear();
        Slots.Clear();
        SlotTable = null;
        LongBytes.Clear();
        Links.Clear();
        Settings.Clear();
        After = [];
        _count = 0;
        AnyWrite = false;
        if (_sites.Length > KeptLength)
        {
            _sites = new PlannedSite[KeptLength];
            _new = new SiteBytes[KeptLength];
        }
    }

    /// <summary>The number of a block, which is taken into the plan where it is not there yet.</summary>
    public int NumberOf(CodeBlock block)
    {
        int number = block.PlanNumber; // perhaps another plan's
        if (number >= Blocks.Count || !ReferenceEquals(Blocks[number], block))
        {
            block.PlanNumber = number = Blocks.Count;
            Blocks.Add(block);
        }

        return number;
    }

    /// <summary>Numbers the blocks that are there.</summary>
    public void NumberBlocks()
    {
        for (int i = 0; i < Blocks.Count; i++)
        {
            Blocks[i].PlanNumber = i;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ref PlannedSite Add(int block, int site, LiveForm form, LiveSiteState state, PatchAction action, PatchReason reason)
    {
        if (_count == _sites.Length)
        {
            Grow();
        }

        ref PlannedSite planned = ref _sites[_count++];

        // Member by member: what is put together elsewhere from bytes and then copied is waited for.
        planned = default;
        planned.Block = block;
        planned.Site = site;
        planned.Form = form;
        planned.State = state;
        planned.Action = action;
        planned.Reason = reason;
        planned.Change = SiteChange.NotWritten; // until it is
        return ref planned;
    }

    private void Grow()
    {
        Array.Resize(ref _sites, _count * 2);
        Array.Resize(ref _new, _count * 2);
    }

    /// <summary>The bytes that a site of up to 16 is to hold, where it is to be written.</summary>
    public SiteBytes NewOf(int index) => _new[index];

    /// <summary>Makes the site that was added last one that is written.</summary>
    /// <param name="bytes">What it is to hold; of a longer site see <see cref="LongBytes"/>.</param>
    public void WriteLast(SiteBytes bytes)
    {
        _new[_count - 1] = bytes;
        _sites[_count - 1].IsWrite = true;
        AnyWrite = true;
    }

    public LiveSite SiteOf(int index) => new(Blocks[_sites[index].Block], _sites[index].Site);

    /// <summary>Makes the records say what the sites hold now, counts, and gives what became of every site.</summary>
    /// <param name="ledger">The links.</param>
    /// <param name="report">Where the counts go.</param>
    /// <param name="start">Where the arena begins.</param>
    public SiteOutcome[] Publish(LinkLedger ledger, ApplyReport report, VirtualAddress start)
    {
        ledger.Publish(this);
        SiteOutcome[] outcomes = GC.AllocateUninitializedArray<SiteOutcome>(_count);
        Span<PlannedSite> sites = Sites;
        CodeBlock block = null!;
        SiteRecord[] records = [];
        int number = -1;
        for (int i = 0; i < sites.Length && i < outcomes.Length; i++)
        {
            ref PlannedSite site = ref sites[i];
            if (site.Block != number)
            {
                number = site.Block;
                block = Blocks[number];
                records = block.Records;
            }

            if (site.IsWrite)
            {
                if (site.Length > 0)
                {
                    block.SetBytes(site.Site, _new[i]);
                }
                else
                {
                    block.SetLongBytes(site.Site, LongBytes[i]);
                }

                // Left to the slot by the backend is what was asked for; for any other reason it is what could not be helped.
                bool helpless = site.Form == LiveForm.Original && site.Reason is not (PatchReason.None or PatchReason.BackendDeclines);
                site.Change = helpless ? SiteChange.MadeIndirect : SiteChange.Written;
                report.MadeIndirect += helpless ? 1 : 0;
                report.Written += helpless ? 0 : 1;
            }

            ref SiteRecord record = ref records[site.Site];
            record.Set(site.State, site.Form, site.Action, site.Reason);
            outcomes[i] = new SiteOutcome(start + record.Offset, site.Change, site.Action, site.Reason);
        }

        return outcomes;
    }

    /// <summary>Marks as faulted what could not be taken back.</summary>
    public void PublishFaults(LinkLedger ledger)
    {
        ledger.PublishFaults(this);
        foreach (ref PlannedSite site in Sites)
        {
            if (site.Change == SiteChange.Faulted)
            {
                Blocks[site.Block].Records[site.Site].State = LiveSiteState.Faulted;
            }
        }
    }

    /// <summary>What became of every site of a batch that was not applied.</summary>
    /// <param name="start">Where the arena begins.</param>
    public SiteOutcome[] Outcomes(VirtualAddress start)
    {
        var outcomes = new SiteOutcome[_count];
        for (int i = 0; i < outcomes.Length; i++)
        {
            ref PlannedSite site = ref _sites[i];
            outcomes[i] = new SiteOutcome(start + Blocks[site.Block].Records[site.Site].Offset, site.Change, site.Action, site.Reason);
        }

        return outcomes;
    }
}
