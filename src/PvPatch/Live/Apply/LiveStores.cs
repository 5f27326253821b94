using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>The steps of a batch at which a test may make it fail.</summary>
internal enum PatchStep
{
    /// <summary>Everything is decided, nothing written.</summary>
    Planned,

    /// <summary>Executors are forwarded around bodies of several instructions.</summary>
    Draining,

    /// <summary>A slot is about to be stored.</summary>
    Slot,

    /// <summary>A site is about to be changed by one store.</summary>
    Store,

    /// <summary>Some sites are about to be guarded.</summary>
    Guard,

    /// <summary>Everything is stored, the last barrier not yet run.</summary>
    Barrier,

    /// <summary>All is done but for the records.</summary>
    Publish,
}

/// <summary>
/// Writes what is decided, and takes it back where something fails. Chooses no byte; how a site is written follows from its record, which
/// says until the end what the site held before.
/// </summary>
internal abstract unsafe class LiveStores
{
    private readonly Action<PatchStep, int>? _probe;
    private readonly byte* _writeView;
    private int _slotsReached;

    protected LiveStores(CodeArena arena, SlotTable slots, PlannedSites plan, BatchReport report, SwitchOptions options, Action<PatchStep, int>? probe)
    {
        Arena = arena;
        Slots = slots;
        Plan = plan;
        Report = report;
        Options = options;
        _probe = probe;
        _writeView = arena.Memory.WriteView(arena.Address);
    }

    protected CodeArena Arena { get; }

    protected SlotTable Slots { get; }

    protected PlannedSites Plan { get; }

    protected BatchReport Report { get; }

    protected SwitchOptions Options { get; }

    protected bool AnySlotStored => Report.SlotsWritten > 0;

    /// <summary>Whether any site was written.</summary>
    protected abstract bool AnySiteWritten { get; }

    /// <summary>Writes everything, or nothing in the end.</summary>
    public SwitchStatus Run()
    {
        try
        {
            Reach(PatchStep.Planned, 0);
            if (TryWrite())
            {
                Reach(PatchStep.Publish, 0);
                return SwitchStatus.Applied;
            }
        }
        catch (OperationCanceledException) when (Options.Cancellation.IsCancellationRequested)
        {
            Report.Add(PatchDiagnostic.Error(DiagnosticCodes.BatchFaulted, "the batch was cancelled"));
        }
        catch (Exception e)
        {
            Report.Add(PatchDiagnostic.Error(DiagnosticCodes.BatchFaulted, $"the batch was interrupted: {e.Message}") with { Found = e.GetType().Name });
        }

        return TakeBack() ? SwitchStatus.RolledBack : SwitchStatus.Faulted;
    }

    /// <summary>Writes; where it gives false, a finding says why.</summary>
    protected abstract bool TryWrite();

    /// <summary>Writes the old bytes where the new ones were written, marks the outcomes, and tells whether it could everywhere.</summary>
    protected abstract bool TryWriteBack();

    /// <summary>A step of the batch: where it can be cancelled, and where tests make it fail.</summary>
    protected void Reach(PatchStep step, int index)
    {
        Probe(step, index);
        Options.Cancellation.ThrowIfCancellationRequested();
    }

    /// <summary>A step too small to look for cancelling at.</summary>
    protected void Probe(PatchStep step, int index) => _probe?.Invoke(step, index);

    /// <summary>The site of an outcome: its record, what it holds, and its first byte in the write view.</summary>
    protected ref SiteRecord RecordOf(int outcome, out SiteBytes old, out byte* at)
    {
        ref OutcomeRecord site = ref Plan.Outcomes[outcome];
        CodeBlock block = Plan.Blocks[site.Block];
        ref SiteRecord record = ref block.Records[site.Site];
        old = block.BytesOf(site.Site);
        at = _writeView + record.Offset;
        return ref record;
    }

    protected void StoreSlots()
    {
        foreach (SlotWrite write in Plan.Slots)
        {
            _slotsReached++;
            if (write.Old != write.New)
            {
                Probe(PatchStep.Slot, write.Slot);
                Slots.Store(write.Slot, write.New);
                Report.SlotsWritten++;
            }
        }
    }

    protected void RunBarrier() => GuardRunner.RunBarrier(Arena, Report);

    private bool TakeBack()
    {
        Plan.MarkWrites(SiteChange.NotWritten);
        bool clean = TryWriteBack();

        // Behind the sites: one that is still direct does not mind what its slot holds.
        for (int i = 0; i < _slotsReached; i++)
        {
            Slots.Store(Plan.Slots[i].Slot, Plan.Slots[i].Old);
        }

        if (AnySiteWritten || AnySlotStored)
        {
            RunBarrier();
        }

        Report.SlotsWritten = 0;
        Arena.Ledger.Release(Plan);
        if (!clean)
        {
            Plan.PublishFaults(Arena.Ledger);
        }

        return clean;
    }
}
