using System.Runtime.InteropServices;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// Writes a batch while other threads run: bodies of several instructions drained, slots, sites that one store changes, sites that need a
/// guard. In that order: what
/// fails early has written least.
/// </summary>
internal sealed unsafe class ConcurrentStores(
    CodeArena arena, SlotTable slots, PlannedSites plan, BatchReport report, SwitchOptions options, Action<PatchStep, int>? probe)
    : LiveStores(arena, slots, plan, report, options, probe)
{
    // The guards of a batch are up for as long as its stores and two barriers take; executors without a forwarding island wait.
    private const int MaxGuarded = 256;

    private readonly List<int> _guarded = [];
    private readonly List<int> _drained = [];
    private int _storedUpTo; // of the writes that one store serves, those before this one are made
    private int _guardsStored;

    protected override bool AnySiteWritten => _storedUpTo > 0 || _guardsStored > 0 || _drained.Count > 0;

    protected override bool TryWrite()
    {
        if (Arena.Islands.TakeReused() | Arena.Functions.TakeReused())
        {
            // Where other code stood before, another processor may be reading ahead: it must forget that before it is led here.
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
        if (_guardsStored == 0 && (_storedUpTo > 0 || AnySlotStored))
        {
            // For completion: behind it no processor starts an old body. The guarded sites' last barrier serves for all.
            RunBarrier();
        }

        return true;
    }

    protected override bool TryWriteBack()
    {
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

        bool clean = true;
        foreach (ref SiteWrite write in Plan.Writes[.._storedUpTo])
        {
            ref SiteRecord record = ref RecordOf(write.Outcome, out SiteBytes old, out byte* at);
            if (!IsGuarded(record))
            {
                bool back = SiteStore.TryStore(at, record.Class, write.Length, write.New, old);
                Plan.Outcomes[write.Outcome].Change = back ? SiteChange.RolledBack : SiteChange.Faulted;
                clean &= back;
            }
        }

        return clean;
    }

    private bool TryStoreAtomic()
    {
        Span<SiteWrite> writes = Plan.Writes;
        for (int i = 0; i < writes.Length; i++)
        {
            ref SiteWrite write = ref writes[i];
            ref SiteRecord record = ref RecordOf(write.Outcome, out SiteBytes old, out byte* at);
            if (IsGuarded(record))
            {
                _guarded.Add(i);
                continue;
            }

            Probe(PatchStep.Store, i);
            if (!SiteStore.TryStore(at, record.Class, write.Length, old, write.New))
            {
                Report.Add(PatchDiagnostic.Error(DiagnosticCodes.SwapFailed, "a site changed between the check and the store; something else writes the code") with
                {
                    Address = Arena.Address + record.Offset,
                    Found = HexBytes.Format(new ReadOnlySpan<byte>(at, write.Length)),
                    Expected = HexBytes.Format(old.ToArray(write.Length)),
                });
                return false;
            }

            _storedUpTo = i + 1;
        }

        return true;
    }

    private static bool IsGuarded(in SiteRecord record) => record.Class == SiteClass.Guarded || record.Form == LiveForm.InPlace;

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
        for (int i = 0; Arena.Executors.IsTracking && i < Plan.Writes.Length; i++)
        {
            if (RecordOf(Plan.Writes[i].Outcome, out _, out _).Form == LiveForm.InPlace)
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
        bool passed = Arena.Executors.Wait(Arena.Executors.Begin(), Options.Timeout, Options.Cancellation);
        if (!passed)
        {
            Options.Cancellation.ThrowIfCancellationRequested();
            Report.Add(PatchDiagnostic.Error(DiagnosticCodes.GraceTimeout, $"after {Options.Timeout.TotalMilliseconds:0} ms executors may still be inside a body of several instructions") with
            {
                Address = Plan.SiteOf(Plan.Writes[_drained[0]].Outcome).Address,
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
                ref SiteWrite write = ref Plan.Writes[writes[i]];
                ref SiteRecord record = ref RecordOf(write.Outcome, out SiteBytes old, out byte* at);
                sbyte forward = SiteRules.UsableForward(record, Plan.After[Slots.Kinds[record.Kind].Slot]);
                entries[i] = GuardEntry.Create(at, write.Length, toNew ? write.New : old, forward);
            }

            GuardRunner.Run(Arena, entries, writes.Count, firstPhase, lastPhase, Report);
        }
        finally
        {
            NativeMemory.Free(entries);
        }
    }

    private void Mark(List<int> writes, SiteChange change)
    {
        foreach (int i in writes)
        {
            Plan.Outcomes[Plan.Writes[i].Outcome].Change = change;
        }
    }
}
