using Iced.Intel;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Decides a batch: for every site in its scope the new bytes, or why it stays; for every slot its function. Reads sites and checks that they hold what they should.
/// Writes islands, which nobody can reach yet, and nothing else.
/// </summary>
internal sealed unsafe class BatchPlanner
{
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly BatchPlan _plan;
    private readonly BatchRequest _request;
    private readonly BatchReport _report;
    private readonly bool _live;
    private readonly bool _inPlace;
    private readonly bool _canGuard;
    private readonly VirtualAddress _start;
    private readonly byte* _writeView;
    private readonly bool[] _callsThroughSlot;
    private readonly bool[] _missing;

    public BatchPlanner(CodeArena arena, SlotTable slots, BatchPlan plan, BatchRequest request, BatchReport report)
    {
        _arena = arena;
        _slots = slots;
        _plan = plan;
        _request = request;
        _report = report;
        _live = request.Options.Mode == SwitchMode.Live;
        _inPlace = request.Options.InPlace && !_live;
        _canGuard = !arena.Native.Barrier.IsZero;
        _start = arena.Address;
        _writeView = arena.Memory.WriteView(_start);
        _callsThroughSlot = new bool[slots.Layout.Count];
        _missing = new bool[slots.Layout.Count];
    }

    /// <summary>Fills the plan; findings go into the report.</summary>
    public void Run()
    {
        using (_arena.Islands.Hold())
        {
            PlanAllSites();
        }

        PlanSlots();
    }

    private void PlanAllSites()
    {
        if (_request.OnlySites is not null)
        {
            PlanSites(_request.OnlySites);
        }
        else
        {
            if (_request.OnlyBlocks is null)
            {
                _arena.CopyBlocks(_slots, _plan.Blocks);
            }
            else
            {
                _plan.Blocks.AddRange(_request.OnlyBlocks);
            }

            for (int i = 0; i < _plan.Blocks.Count; i++)
            {
                PlanBlock(i);
            }
        }
    }

    private void PlanSites(IReadOnlyList<LiveSite> sites)
    {
        var numbers = new Dictionary<CodeBlock, int>();
        var seen = new HashSet<LiveSite>();
        foreach (LiveSite site in sites)
        {
            if (!seen.Add(site))
            {
                continue;
            }

            if (!numbers.TryGetValue(site.Block, out int number))
            {
                number = _plan.Blocks.Count;
                _plan.Blocks.Add(site.Block);
                numbers.Add(site.Block, number);
            }

            if (BodyOf(site.Record.Kind) is LiveBody body)
            {
                PlanSite(number, site.Block, site.Index, body);
            }
        }
    }

    private void PlanBlock(int number)
    {
        CodeBlock block = _plan.Blocks[number];
        for (int i = 0; i < block.SiteCount; i++)
        {
            ref SiteRecord record = ref block.Records[i];
            if (_request.OnlySlot >= 0 && _slots.Kinds[record.Kind].Slot != _request.OnlySlot)
            {
                continue;
            }

            LiveBody? body = BodyOf(record.Kind);
            if (body is not null && !TryPlanPlain(number, i, ref record, body))
            {
                PlanSite(number, block, i, body);
            }
        }
    }

    /// <summary>
    /// The way of nearly all sites, in one piece: the same bytes and checks as <see cref="PlanSite"/> and <see cref="Note"/>, which do whatever is out of the ordinary. Where
    /// this one gives up, it has left no trace.
    /// </summary>
    private bool TryPlanPlain(int blockNumber, int index, ref SiteRecord record, LiveBody body)
    {
        VirtualAddress address = _start + record.Offset;
        VirtualAddress target = body.Target;
        if (!body.IsPlain || record.IsForeign || record.Form == LiveForm.Several
            || (_live && (record.Class >= SiteClass.Guarded && (record.Class == SiteClass.QuiescentOnly || !_canGuard)))
            || (body.Island is not null && !_arena.Islands.TryFind(record.Offset, body.Island, out target))
            || !body.TryFinish(address + body.Length, target, out SiteBytes bytes))
        {
            return false;
        }

        byte* at = _writeView + record.Offset;
        ulong low = *(ulong*)at & body.Mask.Low;
        ulong high = *(ulong*)(at + 8) & body.Mask.High;
        if (low != record.Low || high != record.High)
        {
            return false;
        }

        bool same = low == bytes.Low && high == bytes.High;
        _callsThroughSlot[body.Slot] |= body.Form == LiveForm.Original || (_live && (record.Form == LiveForm.Original || record.Forward != 0));
        ref OutcomeRecord outcome = ref _plan.AddOutcome(blockNumber, index);
        outcome.Form = body.Form;
        outcome.Action = body.Action;
        outcome.Reason = body.Reason;
        outcome.Change = same ? SiteChange.AlreadyThere : SiteChange.NotWritten;
        if (!same)
        {
            ref PlannedWrite write = ref _plan.AddWrite();
            write.Site = at;
            write.Old = new SiteBytes(low, high);
            write.New = bytes;
            write.Outcome = _plan.OutcomeCount - 1;
            write.Length = (byte)body.Length;
            write.Class = record.Class;
            write.Forward = record.Forward;
            write.Drain = false;
        }

        return true;
    }

    private LiveBody? BodyOf(int kind)
    {
        if (_request.Revert)
        {
            return _slots.OriginalOf(kind);
        }

        // No backend was ever bound to some slots: their sites stay as they were emitted.
        BackendBinding? binding = _request.Binding ?? _request.PerSlot?[_slots.Kinds[kind].Slot];
        return binding?.Body(kind, _inPlace);
    }

    private void PlanSite(int blockNumber, CodeBlock block, int index, LiveBody body)
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
        VirtualAddress target = body.Target;
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
        _callsThroughSlot[slot] |= outcome.Form == LiveForm.Original || (_live && (record.Form == LiveForm.Original || record.Forward != 0));
        var old = new SiteBytes(record.Low, record.High);
        if (old == bytes)
        {
            outcome.Change = SiteChange.AlreadyThere;
            return;
        }

        bool drain = _live && record.Form == LiveForm.Several;
        if (_live && !CanWriteLive(block, index, length, old, drain))
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
        write.Forward = record.Forward;
        write.Drain = drain;
    }

    private bool CanWriteLive(CodeBlock block, int index, int length, SiteBytes old, bool drain)
    {
        ref SiteRecord record = ref block.Records[index];
        if (record.Class == SiteClass.QuiescentOnly)
        {
            return false;
        }

        if (drain)
        {
            // Executors are forwarded by the first two bytes while the body drains; who is behind a first instruction of one byte would come back into the
            // middle of these.
            return record.Forward != 0 && _arena.Executors.IsTracking && length >= 2
                && SiteClassifier.Fits(block.AddressOf(index), 2, 8) && FirstLength(old, length) >= 2;
        }

        // A guard that spins must be taken down in the native call that put it up.
        return record.Class != SiteClass.Guarded || record.Forward != 0 || !_arena.Native.Barrier.IsZero;
    }

    private void KeepOrRefuse(CodeBlock block, int index, int slot, ref OutcomeRecord outcome)
    {
        LiveSite site = block[index];
        if (site.Form == LiveForm.Original && _request.SlotServes(slot))
        {
            outcome.Change = SiteChange.KeptIndirect;
            outcome.Form = LiveForm.Original;
            _callsThroughSlot[slot] = true;
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

        _callsThroughSlot[slot] |= outcome.Form == LiveForm.Original || _live;
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

    private void PlanSlots()
    {
        for (int slot = 0; _request.SetsSlots && slot < _slots.Layout.Count; slot++)
        {
            if ((_request.OnlySlot >= 0 && slot != _request.OnlySlot) || _request.BindingOf(slot) is not BackendBinding binding)
            {
                continue;
            }

            BackendBinding.Function function = binding.FunctionOf(slot);
            VirtualAddress old = _slots[slot];
            if (function.Error is null)
            {
                if (old != function.Address)
                {
                    _plan.Slots.Add(new SlotWrite(slot, old, function.Address));
                }
            }
            else if (_callsThroughSlot[slot])
            {
                _report.Add(function.Error);
            }
        }
    }

    private void NoteMissing(int slot)
    {
        if (!_missing[slot])
        {
            _missing[slot] = true;
            _report.Add(PatchDiagnostic.Warning(DiagnosticCodes.MissingOperation, $"{_request.Target} has no operation for {_slots.Layout[slot]}: its sites trap"));
        }
    }

    private static int FirstLength(SiteBytes bytes, int length)
    {
        var decoder = Decoder.Create(64, bytes.ToArray(length));
        return decoder.Decode().Length;
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
