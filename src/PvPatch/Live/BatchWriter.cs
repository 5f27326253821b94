using System.Runtime.InteropServices;

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

/// <summary>Writes a decided batch, and takes it back where something fails. Chooses no byte.</summary>
internal sealed unsafe class BatchWriter
{
    // The guards of a batch are up for as long as its stores and two barriers take; executors without a forwarding island wait.
    private const int MaxGuarded = 256;

    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly BatchPlan _plan;
    private readonly BatchReport _report;
    private readonly SwitchOptions _options;
    private readonly Action<PatchStep, int>? _probe;
    private readonly List<int> _guarded = [];
    private readonly List<int> _drained = [];
    private int _slotsStored;
    private int _storedUpTo; // of the writes that one store serves, those before this one are made
    private int _longStored;
    private int _guardsStored;

    public BatchWriter(CodeArena arena, SlotTable slots, BatchPlan plan, BatchReport report, SwitchOptions options, Action<PatchStep, int>? probe)
    {
        _options = options;
        _arena = arena;
        _slots = slots;
        _plan = plan;
        _report = report;
        _probe = probe;
    }

    /// <summary>Writes the batch while other threads run.</summary>
    public SwitchStatus RunLive()
    {
        return Guarded(() =>
        {
            Reach(PatchStep.Planned, 0);
            if (_arena.Islands.TakeReused())
            {
                // Where an island stood before, another processor may be reading ahead: it must forget that before it is led here.
                RunBarrier();
            }

            if (!TryDrain())
            {
                return false;
            }

            StoreSlots();
            if (!TryStoreAtomic())
            {
                return false;
            }

            WriteGuarded();
            Reach(PatchStep.Barrier, 0);
            if (_guardsStored == 0 && (_storedUpTo > 0 || _slotsStored > 0))
            {
                // For completion: behind it no processor starts an old body. The guarded sites' last barrier serves for all.
                RunBarrier();
            }

            Reach(PatchStep.Publish, 0);
            return true;
        });
    }

    /// <summary>Writes the batch while nobody runs the sites.</summary>
    public SwitchStatus RunAlone()
    {
        return Guarded(() =>
        {
            Reach(PatchStep.Planned, 0);
            StoreSlots();
            Span<PlannedWrite> writes = _plan.Writes;
            for (int i = 0; i < writes.Length; i++)
            {
                _probe?.Invoke(PatchStep.Store, i);
                Copy(writes[i].Site, writes[i].New, writes[i].Length);
                _storedUpTo = i + 1;
            }

            for (; _longStored < _plan.LongWrites.Count; _longStored++)
            {
                LongWrite write = _plan.LongWrites[_longStored];
                write.New.CopyTo(_arena.Memory.Span(write.Block.AddressOf(write.Site), write.New.Length));
            }

            Reach(PatchStep.Barrier, 0);
            if (_storedUpTo > 0 || _longStored > 0 || _slotsStored > 0)
            {
                RunBarrier(); // before anyone enters again
            }

            Reach(PatchStep.Publish, 0);
            return true;
        }, alone: true);
    }

    private static void Copy(byte* site, SiteBytes bytes, int length) => new ReadOnlySpan<byte>(&bytes, length).CopyTo(new Span<byte>(site, length));

    private SwitchStatus Guarded(Func<bool> body, bool alone = false)
    {
        try
        {
            if (body())
            {
                return SwitchStatus.Applied;
            }
        }
        catch (OperationCanceledException) when (_options.Cancellation.IsCancellationRequested)
        {
            _report.Add(PatchDiagnostic.Error(DiagnosticCodes.BatchFaulted, "the batch was cancelled"));
        }
        catch (Exception e)
        {
            _report.Add(PatchDiagnostic.Error(DiagnosticCodes.BatchFaulted, $"the batch was interrupted: {e.Message}") with { Found = e.GetType().Name });
        }

        return TakeBack(alone);
    }

    private void Reach(PatchStep step, int index)
    {
        _probe?.Invoke(step, index);
        _options.Cancellation.ThrowIfCancellationRequested();
    }

    private void StoreSlots()
    {
        foreach (SlotWrite write in _plan.Slots)
        {
            _probe?.Invoke(PatchStep.Slot, write.Slot);
            _slots[write.Slot] = write.New;
            _slotsStored++;
        }
    }

    private bool TryStoreAtomic()
    {
        Span<PlannedWrite> writes = _plan.Writes;
        for (int i = 0; i < writes.Length; i++)
        {
            ref PlannedWrite write = ref writes[i];
            if (IsGuarded(write))
            {
                _guarded.Add(i);
                continue;
            }

            _probe?.Invoke(PatchStep.Store, i);
            if (!SiteStore.TryStore(write.Site, write.Class, write.Length, write.Old, write.New))
            {
                _report.Add(PatchDiagnostic.Error(DiagnosticCodes.SwapFailed, "a site changed between the check and the store; something else writes the code") with
                {
                    Address = AddressOf(write),
                    Found = HexBytes.Format(new ReadOnlySpan<byte>(write.Site, write.Length)),
                    Expected = HexBytes.Format(write.Old.ToArray(write.Length)),
                });
                return false;
            }

            _storedUpTo = i + 1;
        }

        return true;
    }

    private static bool IsGuarded(in PlannedWrite write) => write.Class == SiteClass.Guarded || write.Drain;

    private void WriteGuarded()
    {
        for (; _guardsStored < _guarded.Count; _guardsStored += Math.Min(MaxGuarded, _guarded.Count - _guardsStored))
        {
            int count = Math.Min(MaxGuarded, _guarded.Count - _guardsStored);
            Reach(PatchStep.Guard, _guardsStored);
            WriteGuards(_guarded.GetRange(_guardsStored, count), toNew: true, firstPhase: 1, lastPhase: 3);
        }
    }

    /// <summary>Forwards executors around bodies of several instructions and waits until none is inside any more.</summary>
    private bool TryDrain()
    {
        for (int i = 0; i < _plan.Writes.Length; i++)
        {
            if (_plan.Writes[i].Drain)
            {
                _drained.Add(i);
            }
        }

        if (_drained.Count == 0)
        {
            return true;
        }

        WriteGuards(_drained, toNew: true, firstPhase: 1, lastPhase: 1);
        Reach(PatchStep.Draining, 0);
        bool passed = _arena.Executors.Begin().Wait(_options.Timeout, _options.Cancellation);
        if (!passed)
        {
            _report.Add(PatchDiagnostic.Error(DiagnosticCodes.GraceTimeout, $"after {_options.Timeout.TotalMilliseconds:0} ms executors may still be inside a body of several instructions") with
            {
                Address = AddressOf(_plan.Writes[_drained[0]]),
                Help = "Let every executor pass a safepoint, or wait longer (SwitchOptions.Timeout).",
            });
        }

        return passed;
    }

    private void WriteGuards(List<int> writes, bool toNew, int firstPhase, int lastPhase)
    {
        GuardEntry* entries = (GuardEntry*)NativeMemory.Alloc((nuint)writes.Count, GuardEntry.SizeInBytes);
        try
        {
            for (int i = 0; i < writes.Count; i++)
            {
                ref PlannedWrite write = ref _plan.Writes[writes[i]];
                entries[i] = GuardEntry.Create(write.Site, write.Length, toNew ? write.New : write.Old, write.Forward);
            }

            GuardRunner.Run(_arena, entries, writes.Count, firstPhase, lastPhase, _report);
        }
        finally
        {
            NativeMemory.Free(entries);
        }
    }

    private SwitchStatus TakeBack(bool alone)
    {
        _plan.MarkWrites(SiteChange.NotWritten);
        bool clean = true;
        List<int> guarded = _guarded.GetRange(0, _guardsStored);
        List<int> drained = [.. _drained.Except(guarded)];
        if (guarded.Count > 0)
        {
            WriteGuards(guarded, toNew: false, firstPhase: 1, lastPhase: 3);
            Mark(guarded, SiteChange.RolledBack);
        }

        if (drained.Count > 0)
        {
            // Nothing but the heads was written there, and they cover one old instruction each: put back, the old bodies are whole again.
            WriteGuards(drained, toNew: false, firstPhase: 3, lastPhase: 3);
            Mark(drained, SiteChange.RolledBack);
        }

        foreach (ref PlannedWrite write in _plan.Writes[.._storedUpTo])
        {
            bool back = true;
            if (!alone && IsGuarded(write))
            {
                continue;
            }

            if (alone)
            {
                Copy(write.Site, write.Old, write.Length);
            }
            else
            {
                back = SiteStore.TryStore(write.Site, write.Class, write.Length, write.New, write.Old);
            }

            _plan.Outcomes[write.Outcome].Change = back ? SiteChange.RolledBack : SiteChange.Faulted;
            clean &= back;
        }

        for (int i = 0; i < _longStored; i++)
        {
            LongWrite write = _plan.LongWrites[i];
            write.Old.CopyTo(_arena.Memory.Span(write.Block.AddressOf(write.Site), write.Old.Length));
            _plan.Outcomes[write.Outcome].Change = SiteChange.RolledBack;
        }

        // Behind the sites: one that is still direct does not mind what its slot holds.
        for (int i = 0; i < _slotsStored; i++)
        {
            _slots[_plan.Slots[i].Slot] = _plan.Slots[i].Old;
        }

        if (_storedUpTo > 0 || _longStored > 0 || _slotsStored > 0)
        {
            RunBarrier();
        }

        if (!clean)
        {
            _plan.PublishFaults();
        }

        return clean ? SwitchStatus.RolledBack : SwitchStatus.Faulted;
    }

    private void Mark(List<int> writes, SiteChange change)
    {
        foreach (int i in writes)
        {
            _plan.Outcomes[_plan.Writes[i].Outcome].Change = change;
        }
    }

    private void RunBarrier() => GuardRunner.RunBarrier(_arena, _report);

    private VirtualAddress AddressOf(in PlannedWrite write) => _arena.Address + (write.Site - _arena.Memory.WriteView(_arena.Address));
}
