namespace PvPatch.Live;

/// <summary>Writes a decided batch, and takes it back where something fails. Chooses no byte.</summary>
internal abstract class BatchWriter
{
    private readonly Action<PatchStep, int>? _probe;
    private int _slotsStored;

    protected BatchWriter(CodeArena arena, SlotTable slots, BatchPlan plan, BatchReport report, SwitchOptions options, Action<PatchStep, int>? probe)
    {
        Arena = arena;
        Slots = slots;
        Plan = plan;
        Report = report;
        Options = options;
        _probe = probe;
    }

    protected CodeArena Arena { get; }

    protected SlotTable Slots { get; }

    protected BatchPlan Plan { get; }

    protected BatchReport Report { get; }

    protected SwitchOptions Options { get; }

    protected bool AnySlotStored => _slotsStored > 0;

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

    /// <summary>Whether any site was written.</summary>
    protected abstract bool AnySiteWritten { get; }

    /// <summary>A step of the batch: where it can be cancelled, and where tests make it fail.</summary>
    protected void Reach(PatchStep step, int index)
    {
        Probe(step, index);
        Options.Cancellation.ThrowIfCancellationRequested();
    }

    /// <summary>A step too small to look for cancelling at.</summary>
    protected void Probe(PatchStep step, int index) => _probe?.Invoke(step, index);

    protected void StoreSlots()
    {
        foreach (SlotWrite write in Plan.Slots)
        {
            Probe(PatchStep.Slot, write.Slot);
            Slots[write.Slot] = write.New;
            _slotsStored++;
        }
    }

    protected void RunBarrier() => GuardRunner.RunBarrier(Arena, Report);

    private bool TakeBack()
    {
        Plan.MarkWrites(SiteChange.NotWritten);
        bool clean = TryWriteBack();

        // Behind the sites: one that is still direct does not mind what its slot holds.
        for (int i = 0; i < _slotsStored; i++)
        {
            Slots[Plan.Slots[i].Slot] = Plan.Slots[i].Old;
        }

        if (AnySiteWritten || AnySlotStored)
        {
            RunBarrier();
        }

        if (!clean)
        {
            Plan.PublishFaults(Arena.Ledger);
        }

        return clean;
    }
}
