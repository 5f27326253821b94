using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Writes a batch while other threads run: bodies of several instructions drained, slots, sites that one store changes, sites that need a
/// guard. In that order: what
/// fails early has written least.
/// </summary>
internal sealed unsafe class ConcurrentStores(
    CodeArena arena, SlotTable slots, PlannedSites plan, ApplyReport report, SwitchOptions options, Action<PatchStep, int>? probe)
    : LiveStores(arena, slots, plan, report, options, probe)
{
    // The guards of a batch are up for as long as its stores and two barriers take; executors without a forwarding island wait.
    private const int MaxGuarded = 256;

    private readonly List<int> _guarded = [];
    private readonly List<int> _drained = [];
    private int _storedUpTo; // of the sites that one store serves, those before this one are written
    private int _guardsStored;

    protected override bool AnySiteWritten => _storedUpTo > 0 || _guardsStored > 0 || _drained.Count > 0;

    /// <summary>Changes a site of a class that one store serves, in one event, if it still holds what it should.</summary>
    /// <param name="at">The site in the write view.</param>
    /// <param name="kind">Its class: anything but guarded and quiescent.</param>
    /// <param name="length">Its bytes.</param>
    /// <param name="old">What it holds.</param>
    /// <param name="new">What it is to hold.</param>
    /// <returns>Whether it held <paramref name="old"/>, and so was written.</returns>
    internal static bool TryStore(byte* at, SiteClass kind, int length, SiteBytes old, SiteBytes @new) => kind switch
    {
        SiteClass.Atomic8 => TrySwap((ulong*)((nuint)at & ~(nuint)7), (int)((nuint)at & 7), length, old.Low, @new.Low),
        // Not in an aligned 8, so it begins before the last of the line: 8 bytes from there on are in the line.
        SiteClass.Line => TrySwap((ulong*)at, 0, length, old.Low, @new.Low),
        _ => TryStore16((byte*)((nuint)at & ~(nuint)15), (int)((nuint)at & 15), length, old, @new),
    };

    protected override bool TryWrite()
    {
        if (Arena.Memory.TakeReused())
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
        Span<int> guarded = CollectionsMarshal.AsSpan(_guarded)[.._guardsStored];
        int[] drained = [.. _drained.Except(_guarded.Take(_guardsStored))];
        if (guarded.Length > 0)
        {
            WriteGuards(guarded, toNew: false, firstPhase: 1, lastPhase: 3);
            Mark(guarded, SiteChange.RolledBack);
        }

        if (drained.Length > 0)
        {
            // Nothing but the heads was written there, and they cover one old instruction each: put back, the old bodies are whole again.
            WriteGuards(drained, toNew: false, firstPhase: 3, lastPhase: 3);
            Mark(drained, SiteChange.RolledBack);
        }

        bool clean = true;
        for (int i = 0; i < _storedUpTo; i++)
        {
            ref PlannedSite site = ref Plan.Sites[i];
            ref SiteRecord record = ref RecordOf(site, out SiteBytes old, out byte* at);
            if (site.IsWrite && !IsGuarded(record))
            {
                bool back = TryStore(at, record.Class, site.Length, Plan.NewOf(i), old);
                site.Change = back ? SiteChange.RolledBack : SiteChange.Faulted;
                clean &= back;
            }
        }

        return clean;
    }

    private bool TryStoreAtomic()
    {
        Span<PlannedSite> sites = Plan.Sites;
        for (int i = 0; Plan.AnyWrite && i < sites.Length; i++)
        {
            ref PlannedSite site = ref sites[i];
            if (!site.IsWrite)
            {
                continue;
            }

            ref SiteRecord record = ref RecordOf(site, out SiteBytes old, out byte* at);
            if (IsGuarded(record))
            {
                _guarded.Add(i);
                continue;
            }

            Probe(PatchStep.Store, i);
            if (!TryStore(at, record.Class, site.Length, old, Plan.NewOf(i)))
            {
                Report.Add(PatchDiagnostic.Error(
                    DiagnosticCodes.SwapFailed, "a site changed between the check and the store; something else writes the code") with
                {
                    Address = Arena.Address + record.Offset,
                    Found = HexBytes.Format(new ReadOnlySpan<byte>(at, site.Length)),
                    Expected = HexBytes.Format(old.ToArray(site.Length)),
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
            WriteGuards(CollectionsMarshal.AsSpan(_guarded).Slice(_guardsStored, count), toNew: true, firstPhase: 1, lastPhase: 3);
        }
    }

    /// <summary>Forwards executors around bodies of several instructions and waits until none is inside any more.</summary>
    private bool TryDrain()
    {
        for (int i = 0; Arena.Executors.IsTracking && i < Plan.Count; i++)
        {
            if (Plan.Sites[i].IsWrite && RecordOf(Plan.Sites[i], out _, out _).Form == LiveForm.InPlace)
            {
                _drained.Add(i);
            }
        }

        if (_drained.Count == 0)
        {
            return true;
        }

        WriteGuards(CollectionsMarshal.AsSpan(_drained), toNew: true, firstPhase: 1, lastPhase: 1);
        Reach(PatchStep.Draining, 0);
        bool passed = Arena.Executors.Wait(Arena.Executors.Begin(), Options.Timeout, Options.Cancellation);
        if (!passed)
        {
            Options.Cancellation.ThrowIfCancellationRequested();
            Report.Add(PatchDiagnostic.Error(DiagnosticCodes.GraceTimeout,
                $"after {Options.Timeout.TotalMilliseconds:0} ms executors may still be inside a body of several instructions") with
            {
                Address = Plan.SiteOf(_drained[0]).Address,
                Help = "Let every executor pass a safepoint, or wait longer (SwitchOptions.Timeout).",
            });
        }

        return passed;
    }

    private void WriteGuards(ReadOnlySpan<int> sites, bool toNew, int firstPhase, int lastPhase)
    {
        GuardEntry* entries = (GuardEntry*)NativeMemory.Alloc((nuint)sites.Length, GuardEntry.SizeInBytes);
        try
        {
            Span<PlannedSite> planned = Plan.Sites;
            for (int i = 0; i < sites.Length; i++)
            {
                ref PlannedSite site = ref planned[sites[i]];
                ref SiteRecord record = ref RecordOf(site, out SiteBytes old, out byte* at);
                sbyte forward = record.Forward == 0
                    ? (sbyte)0 : record.UsableForward(Plan.After[Slots.KindOf(record.Kind).Slot]);
                entries[i] = GuardEntry.Create(at, site.Length, toNew ? Plan.NewOf(sites[i]) : old, forward);
            }

            RunGuards(entries, sites.Length, firstPhase, lastPhase);
        }
        finally
        {
            NativeMemory.Free(entries);
        }
    }

    /// <summary>
    /// Runs some phases of the guard routine, a barrier behind each; stands in with managed barriers where the native one fails or is
    /// missing.
    /// </summary>
    private void RunGuards(GuardEntry* entries, int count, int firstPhase, int lastPhase)
    {
        // A single phase is asked for only with forwarding guards, which nobody waits at: managed code may hold those.
        bool native = lastPhase == 3 && !Arena.Native.Barrier.IsZero;
        var routine = (delegate* unmanaged<GuardEntry*, long, int, void*, int>)Arena.Native.Guards.Value;
        for (int phase = firstPhase; phase <= lastPhase; phase++)
        {
            int stopped = routine(entries, count, phase, native ? (void*)Arena.Native.Barrier.Value : null);
            int done = (stopped == 0 ? 3 : stopped - 1) - phase + 1;
            if (done > 0)
            {
                Report.AddBarriers(done, Arena.Barrier);
                LiveEvents.Barrier(Arena.Barrier, done);
            }

            if (stopped == 0)
            {
                return;
            }

            // The guards are up. Leaving them is worse than a weaker barrier, and the old bytes can't come back without a barrier either.
            RunBarrier();
            phase = stopped;
        }
    }

    private void Mark(ReadOnlySpan<int> sites, SiteChange change)
    {
        foreach (int i in sites)
        {
            Plan.Sites[i].Change = change;
        }
    }

    /// <summary>One 8-byte compare-and-swap of the word around the site.</summary>
    private static bool TrySwap(ulong* word, int offset, int length, ulong old, ulong @new)
    {
        int shift = offset * 8;
        ulong mask = (length == 8 ? ulong.MaxValue : (1UL << length * 8) - 1) << shift;

        // The bytes around the site are whatever they are now; the site's own must be the old ones, or the swap fails.
        ulong around = Volatile.Read(ref *word) & ~mask;
        ulong expected = around | old << shift;
        return Interlocked.CompareExchange(ref *word, around | @new << shift, expected) == expected;
    }

    /// <summary>
    /// One aligned 16-byte store, movaps: atomic on processors with AVX. Nobody else writes here, for the patch lock is held.
    /// </summary>
    private static bool TryStore16(byte* line, int offset, int length, SiteBytes old, SiteBytes @new)
    {
        if (SiteBytes.Read(line + offset, length) != old)
        {
            return false;
        }

        Vector128<byte> there = Sse2.LoadAlignedVector128(line);
        byte* merged = stackalloc byte[16];
        Sse2.Store(merged, there);
        new ReadOnlySpan<byte>(&@new, length).CopyTo(new Span<byte>(merged + offset, length));
        Sse2.StoreAligned(line, Sse2.LoadVector128(merged));
        return true;
    }
}
