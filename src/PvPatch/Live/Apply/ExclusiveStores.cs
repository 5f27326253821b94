using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>Writes a batch while nobody runs its sites: plain copies, and one barrier before anyone enters.</summary>
internal sealed unsafe class ExclusiveStores(
    CodeArena arena, SlotTable slots, PlannedSites plan, BatchReport report, SwitchOptions options, Action<PatchStep, int>? probe)
    : LiveStores(arena, slots, plan, report, options, probe)
{
    private int _stored;
    private int _longStored;

    protected override bool AnySiteWritten => _stored > 0 || _longStored > 0;

    protected override bool TryWrite()
    {
        StoreSlots();
        Span<SiteWrite> writes = Plan.Writes;
        for (; _stored < writes.Length; _stored++)
        {
            Probe(PatchStep.Store, _stored);
            _ = RecordOf(writes[_stored].Outcome, out _, out byte* at);
            Copy(at, writes[_stored].New, writes[_stored].Length);
        }

        for (; _longStored < Plan.LongWrites.Count; _longStored++)
        {
            LongWrite write = Plan.LongWrites[_longStored];
            write.New.CopyTo(Arena.Memory.Span(write.Block.AddressOf(write.Site), write.New.Length));
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
        foreach (ref SiteWrite write in Plan.Writes[.._stored])
        {
            _ = RecordOf(write.Outcome, out SiteBytes old, out byte* at);
            Copy(at, old, write.Length);
            Plan.Outcomes[write.Outcome].Change = SiteChange.RolledBack;
        }

        foreach (LongWrite write in Plan.LongWrites.Take(_longStored))
        {
            write.Old.CopyTo(Arena.Memory.Span(write.Block.AddressOf(write.Site), write.Old.Length));
            Plan.Outcomes[write.Outcome].Change = SiteChange.RolledBack;
        }

        return true;
    }

    private static void Copy(byte* site, SiteBytes bytes, int length) =>
        new ReadOnlySpan<byte>(&bytes, length).CopyTo(new Span<byte>(site, length));
}
