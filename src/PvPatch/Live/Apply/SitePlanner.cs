using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>Decides one site with everything that can be out of the ordinary about it.</summary>
internal sealed unsafe class SitePlanner
{
    private readonly BatchContext _context;
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly BatchPlan _plan;
    private readonly BatchRequest _request;
    private readonly BatchReport _report;
    private readonly bool _live;
    private readonly bool[] _missing;

    public SitePlanner(BatchContext context)
    {
        _context = context;
        _arena = context.Arena;
        _slots = context.Slots;
        _plan = context.Plan;
        _request = context.Request;
        _report = context.Report;
        _live = context.IsLive;
        _missing = new bool[_slots.Layout.Count];
    }

    /// <summary>Notes a site that keeps its own target.</summary>
    public void KeepLink(int blockNumber, CodeBlock block, int index)
    {
        ref SiteRecord record = ref block.Records[index];
        ref OutcomeRecord outcome = ref _plan.AddOutcome(blockNumber, index);
        outcome.Form = record.Form;
        outcome.Action = record.Action;
        outcome.Reason = record.Reason;
        outcome.State = SiteState.Linked;
        outcome.Change = SiteChange.KeptLink;

        // It will come back to its slot one day, and perhaps be guarded before.
        _context.CallsThroughSlot[_slots.Kinds[record.Kind].Slot] = true;
        _report.KeptLinks++;
    }

    /// <summary>Decides a site.</summary>
    /// <param name="blockNumber">Its block's number in the plan.</param>
    /// <param name="block">Its block.</param>
    /// <param name="index">Its place in that.</param>
    /// <param name="body">What it shall hold.</param>
    /// <param name="target">Where the body's displacement leads, if it has one and is no island.</param>
    /// <param name="after">The site's state behind the batch.</param>
    public void PlanSite(int blockNumber, CodeBlock block, int index, LiveBody body, VirtualAddress target, SiteState after)
    {
        ref SiteRecord record = ref block.Records[index];
        if (body.Error is not null)
        {
            _report.Add(body.Error with { SiteIndex = index, Address = body.Error.Address ?? block.AddressOf(index) });
            return;
        }

        ref OutcomeRecord outcome = ref _plan.AddOutcome(blockNumber, index);
        outcome.Form = body.Form;
        outcome.Action = body.Action;
        outcome.Reason = body.Reason;
        outcome.State = after;
        if (body.Action == PatchAction.Trap)
        {
            NoteMissing(body.Slot);
        }

        if (body.Length > 16)
        {
            PlanLong(block, index, body, ref outcome);
            return;
        }

        VirtualAddress address = _arena.Memory.Start + record.Offset;
        SiteBytes bytes;
        if (body.Island is not null && !_arena.Islands.TryFind(record.Offset, body.Island, out target))
        {
            if (!_arena.Islands.TryAdd(record.Offset, address + body.Length, body.Island, out target, out PatchDiagnostic? error))
            {
                if (error is not null)
                {
                    _report.Add(error with { SiteIndex = index });
                    return;
                }

                bytes = OutOfReach(block, index, body, address, ref outcome);
                Note(block, index, body.Slot, body.Length, address, bytes, ref outcome);
                return;
            }
        }

        if (body.Form == LiveForm.Several)
        {
            Span<byte> several = stackalloc byte[16];
            bytes = body.InPlace!.TryWrite(address, several[..body.Length])
                ? SiteBytes.From(several[..body.Length])
                : OutOfReach(block, index, body, address, ref outcome);
        }
        else if (body.Form == LiveForm.Original && record.IsForeign)
        {
            bytes = SiteBytes.From(block.OriginalOf(index));
        }
        else if (!body.TryFinish(address + body.Length, target, out bytes))
        {
            bytes = OutOfReach(block, index, body, address, ref outcome);
        }

        Note(block, index, body.Slot, body.Length, address, bytes, ref outcome);
    }

    /// <summary>The call through the slot has 64 bits of reach, and costs hardly more than a direct one.</summary>
    private SiteBytes OutOfReach(CodeBlock block, int index, LiveBody body, VirtualAddress address, ref OutcomeRecord outcome)
    {
        outcome.Form = LiveForm.Original;
        outcome.Action = PatchAction.LeaveAlone;
        outcome.Reason = PatchReason.OutOfReach;
        if (block.Records[index].IsForeign)
        {
            return SiteBytes.From(block.OriginalOf(index));
        }

        _slots.OriginalOf(block.Records[index].Kind).TryFinish(address + body.Length, _slots.AddressOf(body.Slot), out SiteBytes bytes);
        return bytes;
    }

    private void Note(CodeBlock block, int index, int slot, int length, VirtualAddress address, SiteBytes bytes, ref OutcomeRecord outcome)
    {
        ref SiteRecord record = ref block.Records[index];
        _context.CallsThroughSlot[slot] |= outcome.Form == LiveForm.Original || (_live && (record.Form == LiveForm.Original || record.Forward != 0));
        SiteBytes old = block.BytesOf(index);
        if (old == bytes)
        {
            outcome.Change = SiteChange.AlreadyThere;
            return;
        }

        bool drain = _live && record.Form == LiveForm.Several;
        sbyte forward = record.Forward != 0 && _context.SlotAnswers(slot) ? record.Forward : (sbyte)0;
        if (_live && !(drain ? LiveRules.CanDrain(_arena, record, old, length, forward) : LiveRules.CanWrite(_arena, record, forward)))
        {
            KeepOrRefuse(block, index, slot, ref outcome);
            return;
        }

        byte* at = _arena.Memory.WriteView(address);
        if (SiteBytes.Read(at, length) is var found && found != old)
        {
            _report.Add(Unexpected(block, index, found.ToArray(length), old.ToArray(length)));
            outcome.Change = SiteChange.NotWritten;
            return;
        }

        outcome.Change = SiteChange.NotWritten; // until it is
        ref PlannedWrite write = ref _plan.AddWrite();
        write.Site = at;
        write.Old = old;
        write.New = bytes;
        write.Outcome = _plan.OutcomeCount - 1;
        write.Length = (byte)length;
        write.Class = record.Class;
        write.Forward = forward;
        write.Drain = drain;
    }

    private void KeepOrRefuse(CodeBlock block, int index, int slot, ref OutcomeRecord outcome)
    {
        LiveSite site = block[index];
        if (site.Form == LiveForm.Original && outcome.State != SiteState.Linked && _request.SlotServes(slot))
        {
            outcome.Change = SiteChange.KeptIndirect;
            outcome.Form = LiveForm.Original;
            _context.CallsThroughSlot[slot] = true;
            _report.KeptIndirect++;
            return;
        }

        outcome.Change = SiteChange.NotWritten;
        _report.Add(PatchDiagnostic.Error(DiagnosticCodes.NeedsQuiescence, $"the site of {site.Slot} can't be changed while threads may be in it") with
        {
            SiteIndex = index,
            Address = site.Address,
            Found = $"class {site.Class}, {(site.Form == LiveForm.Several ? "several instructions" : "one instruction")}, {(site.HasForwarding ? "a" : "no")} forwarding island",
            Help = site.Class == SiteClass.QuiescentOnly
                ? "Switch with SwitchMode.Quiescent; or emit the site with a placement and at most 15 bytes."
                : "Switch with SwitchMode.Quiescent; or emit the site with forwarding and register executors.",
        });
    }

    private void PlanLong(CodeBlock block, int index, LiveBody body, ref OutcomeRecord outcome)
    {
        (int slot, int length) = (body.Slot, body.Length);
        byte[] old = block.LongBytesOf(index);
        byte[] bytes = new byte[length];
        if (body.InPlace is null || !body.InPlace.TryWrite(block.AddressOf(index), bytes))
        {
            outcome.Action = PatchAction.LeaveAlone;
            outcome.Reason = body.InPlace is null ? body.Reason : PatchReason.OutOfReach;
            outcome.Form = LiveForm.Original;
            bytes = block.OriginalOf(index);
        }

        _context.CallsThroughSlot[slot] |= outcome.Form == LiveForm.Original || _live;
        if (bytes.AsSpan().SequenceEqual(old))
        {
            outcome.Change = SiteChange.AlreadyThere;
            return;
        }

        if (_live)
        {
            KeepOrRefuse(block, index, slot, ref outcome);
            return;
        }

        outcome.Change = SiteChange.NotWritten;
        byte[] found = _arena.Memory.Span(block.AddressOf(index), length).ToArray();
        if (!found.AsSpan().SequenceEqual(old))
        {
            _report.Add(Unexpected(block, index, found, old));
            return;
        }

        _plan.LongWrites.Add(new LongWrite(block, index, _plan.OutcomeCount - 1, old, bytes));
    }

    private void NoteMissing(int slot)
    {
        if (!_missing[slot])
        {
            _missing[slot] = true;
            _report.Add(PatchDiagnostic.Warning(DiagnosticCodes.MissingOperation, $"{_request.Target} has no operation for {_slots.Layout[slot]}: its sites trap"));
        }
    }

    private static PatchDiagnostic Unexpected(CodeBlock block, int index, byte[] found, byte[] expected) =>
        PatchDiagnostic.Error(DiagnosticCodes.UnexpectedLiveBytes, "the site holds bytes that were not put there by this arena's patchers") with
        {
            SiteIndex = index,
            Address = block.AddressOf(index),
            Found = HexBytes.Format(found),
            Expected = HexBytes.Format(expected),
            Help = "Something else writes the code: a debugger's breakpoint, or a host that patches by hand.",
        };
}
