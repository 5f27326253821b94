using PvPatch.Machine;
using PvPatch.Plans;

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
    private CodeBlock? _block; // of the site that was asked for last
    private int _blockNumber = -1;

    protected LiveStores(
        CodeArena arena, SlotTable slots, PlannedSites plan, ApplyReport report, SwitchOptions options, Action<PatchStep, int>? probe)
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

    protected ApplyReport Report { get; }

    protected SwitchOptions Options { get; }

    protected bool AnySlotStored => Report.SlotsWritten > 0;

    /// <summary>Whether any site was written.</summary>
    protected abstract bool AnySiteWritten { get; }

    /// <summary>Runs the arena's barrier, or the weak one every system has where that fails.</summary>
    public static void RunBarrier(CodeArena arena, ApplyReport report)
    {
        if (arena.RunBarrier())
        {
            report.AddBarriers(1, arena.Barrier);
            return;
        }

        Interlocked.MemoryBarrierProcessWide();
        report.AddBarriers(1, BarrierKind.Weak);
        LiveEvents.Barrier(BarrierKind.Weak);
        report.Add(PatchDiagnostic.Warning(
            DiagnosticCodes.WeakBarrier, "the system refused its barrier in the middle of a batch; a weaker one was run in its place") with
        {
            Help = "Was a seccomp filter installed after the arena was made?",
        });
    }

    /// <summary>Writes everything, or nothing in the end.</summary>
    public ApplyStatus Run()
    {
        try
        {
            Reach(PatchStep.Planned, 0);
            if (TryWrite())
            {
                Reach(PatchStep.Publish, 0);
                return ApplyStatus.Applied;
            }
        }
        catch (OperationCanceledException) when (Options.Cancellation.IsCancellationRequested)
        {
            Report.Add(PatchDiagnostic.Error(DiagnosticCodes.BatchFaulted, "the batch was cancelled"));
        }
        catch (Exception e)
        {
            Report.Add(PatchDiagnostic.Error(
                DiagnosticCodes.BatchFaulted, $"the batch was interrupted: {e.Message}") with
            { Found = e.GetType().Name });
        }

        return TakeBack() ? ApplyStatus.RolledBack : ApplyStatus.Faulted;
    }

    /// <summary>Writes; where it gives false, a finding says why.</summary>
    protected abstract bool TryWrite();

    /// <summary>Writes the old bytes where the new ones were written, marks the sites, and tells whether it could everywhere.</summary>
    protected abstract bool TryWriteBack();

    /// <summary>A step of the batch: where it can be cancelled, and where tests make it fail.</summary>
    protected void Reach(PatchStep step, int index)
    {
        Probe(step, index);
        Options.Cancellation.ThrowIfCancellationRequested();
    }

    /// <summary>A step too small to look for cancelling at.</summary>
    protected void Probe(PatchStep step, int index) => _probe?.Invoke(step, index);

    /// <summary>A site's record, what it holds (up to 16 bytes), and its first byte in the write view.</summary>
    protected ref SiteRecord RecordOf(in PlannedSite site, out SiteBytes old, out byte* at)
    {
        if (site.Block != _blockNumber)
        {
            _blockNumber = site.Block;
            _block = Plan.Blocks[_blockNumber];
        }

        ref SiteRecord record = ref _block!.Records[site.Site];
        old = new SiteBytes(record.Low, _block.BytesBehind(site.Site));
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

    protected void RunBarrier() => RunBarrier(Arena, Report);

    private bool TakeBack()
    {
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

/// <summary>Writes a batch while nobody runs its sites: plain copies, and one barrier before anyone enters.</summary>
internal sealed unsafe class ExclusiveStores(
    CodeArena arena, SlotTable slots, PlannedSites plan, ApplyReport report, SwitchOptions options, Action<PatchStep, int>? probe)
    : LiveStores(arena, slots, plan, report, options, probe)
{
    private int _reached; // what is to be written before this site is written
    private bool _anySiteWritten;

    protected override bool AnySiteWritten => _anySiteWritten;

    protected override bool TryWrite()
    {
        StoreSlots();
        for (; _reached < Plan.Count; _reached++)
        {
            if (Plan.Sites[_reached].IsWrite)
            {
                Probe(PatchStep.Store, _reached);
                Copy(_reached, toNew: true);
                _anySiteWritten = true;
            }
        }

        Reach(PatchStep.Barrier, 0);
        if (AnySiteWritten || AnySlotStored)
        {
            RunBarrier();
        }

        return true;
    }

    protected override bool TryWriteBack()
    {
        for (int i = 0; i < _reached; i++)
        {
            if (Plan.Sites[i].IsWrite)
            {
                Copy(i, toNew: false);
                Plan.Sites[i].Change = SiteChange.RolledBack;
            }
        }

        return true;
    }

    private void Copy(int index, bool toNew)
    {
        ref PlannedSite site = ref Plan.Sites[index];
        RecordOf(site, out SiteBytes old, out byte* at);
        if (site.Length == 0)
        {
            byte[] bytes = toNew ? Plan.LongBytes[index] : Plan.Blocks[site.Block].LongBytesOf(site.Site);
            bytes.CopyTo(new Span<byte>(at, bytes.Length));
            return;
        }

        SiteBytes word = toNew ? Plan.NewOf(index) : old;
        new ReadOnlySpan<byte>(&word, site.Length).CopyTo(new Span<byte>(at, site.Length));
    }
}
