using Iced.Intel;
using PvPatch.Plans;
using PvPatch.Sites;

namespace PvPatch.Live;

/// <summary>
/// Decides a batch: for every site in its scope the new bytes, or why it stays; for every slot its function. Reads sites and checks that they hold what they should.
/// Writes islands, which nobody can reach yet, and nothing else.
/// </summary>
internal sealed unsafe class BatchPlanner
{
    private static readonly LiveBody s_original = LiveBody.Indirect(PatchReason.None, null);

    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly BatchPlan _plan;
    private readonly BatchRequest _request;
    private readonly BatchReport _report;
    private readonly bool _live;
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
        _callsThroughSlot = new bool[slots.Layout.Count];
        _missing = new bool[slots.Layout.Count];
    }

    /// <summary>Fills the plan; findings go into the report.</summary>
    public void Run()
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

        PlanSlots();
        ReportMissing();
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

            PlanSite(number, site.Block, site.Index);
        }
    }

    private void PlanBlock(int number)
    {
        CodeBlock block = _plan.Blocks[number];
        for (int i = 0; i < block.SiteCount; i++)
        {
            if (_request.OnlySlot < 0 || block.KindOf(i).Slot == _request.OnlySlot)
            {
                PlanSite(number, block, i);
            }
        }
    }

    private void PlanSite(int blockNumber, CodeBlock block, int index)
    {
        ref SiteRecord record = ref block.Records[index];
        PatchSite kind = _slots.Kinds[record.Kind];
        LiveBody? body = _request.Revert ? s_original : _request.BindingOf(kind.Slot)?.Body(record.Kind, _request.Options.InPlace && !_live);
        if (body is null)
        {
            return; // no backend was ever bound to the slot: its sites stay as they were emitted
        }

        if (body.Error is not null)
        {
            _report.Add(body.Error with { SiteIndex = index, Address = body.Error.Address ?? block.AddressOf(index) });
            return;
        }

        ref OutcomeRecord outcome = ref _plan.AddOutcome(blockNumber, index);
        outcome.Form = body.Form;
        outcome.Action = body.Action;
        outcome.Reason = body.Reason;
        _missing[kind.Slot] |= body.Action == PatchAction.Trap;
        if (kind.Budget > 16)
        {
            PlanLong(block, index, kind, body, ref outcome);
            return;
        }

        VirtualAddress address = _arena.Memory.Start + record.Offset;
        if (TryNewBytes(block, index, kind, body, address, ref outcome, out SiteBytes bytes))
        {
            Note(block, index, kind, address, bytes, ref outcome);
        }
    }

    private bool TryNewBytes(
        CodeBlock block, int index, PatchSite kind, LiveBody body, VirtualAddress address, ref OutcomeRecord outcome, out SiteBytes bytes)
    {
        VirtualAddress end = address + kind.Budget;
        VirtualAddress target = body.Target;
        switch (body.Form)
        {
            case LiveForm.Original:
                bytes = OriginalBytes(block, index, kind, address);
                return true;
            case LiveForm.Several:
                Span<byte> several = stackalloc byte[kind.Budget];
                if (body.InPlace!.TryWrite(address, several))
                {
                    bytes = SiteBytes.From(several);
                    return true;
                }

                break;
            case LiveForm.Island:
                if (!_arena.Islands.TryGet(block.Records[index].Offset, end, body.Island!, out target, out bool outOfReach, out PatchDiagnostic? error))
                {
                    if (outOfReach)
                    {
                        break;
                    }

                    _report.Add(error! with { SiteIndex = index });
                    bytes = default;
                    return false;
                }

                return body.TryFinish(end, target, out bytes);
            default:
                if (body.TryFinish(end, target, out bytes))
                {
                    return true;
                }

                break;
        }

        // Out of reach: the call through the slot has 64 bits of it, and costs hardly more than a direct one.
        outcome.Form = LiveForm.Original;
        outcome.Action = PatchAction.LeaveAlone;
        outcome.Reason = PatchReason.OutOfReach;
        bytes = OriginalBytes(block, index, kind, address);
        return true;
    }

    private SiteBytes OriginalBytes(CodeBlock block, int index, PatchSite kind, VirtualAddress address)
    {
        if (block.Records[index].IsForeign)
        {
            return SiteBytes.From(block.OriginalOf(index));
        }

        Span<byte> bytes = stackalloc byte[kind.Budget];
        _slots.WriteOriginal(kind, address, bytes);
        return SiteBytes.From(bytes);
    }

    private void Note(CodeBlock block, int index, PatchSite kind, VirtualAddress address, SiteBytes bytes, ref OutcomeRecord outcome)
    {
        ref SiteRecord record = ref block.Records[index];
        _callsThroughSlot[kind.Slot] |= outcome.Form == LiveForm.Original || (_live && (record.Form == LiveForm.Original || record.Forward != 0));
        var old = new SiteBytes(record.Low, record.High);
        if (old == bytes)
        {
            outcome.Change = SiteChange.AlreadyThere;
            return;
        }

        bool drain = _live && record.Form == LiveForm.Several;
        if (_live && !CanWriteLive(block, index, kind, old, drain))
        {
            KeepOrRefuse(block, index, kind, ref outcome);
            return;
        }

        byte* at = _arena.Memory.WriteView(address);
        if (SiteBytes.Read(at, kind.Budget) is var found && found != old)
        {
            _report.Add(Unexpected(block, index, found.ToArray(kind.Budget), old.ToArray(kind.Budget)));
            outcome.Change = SiteChange.NotWritten;
            return;
        }

        outcome.Change = SiteChange.NotWritten; // until it is
        ref PlannedWrite write = ref _plan.AddWrite();
        write.Site = at;
        write.Old = old;
        write.New = bytes;
        write.Outcome = _plan.OutcomeCount - 1;
        write.Length = (byte)kind.Budget;
        write.Class = record.Class;
        write.Forward = record.Forward;
        write.Drain = drain;
    }

    private bool CanWriteLive(CodeBlock block, int index, PatchSite kind, SiteBytes old, bool drain)
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
            return record.Forward != 0 && _arena.Executors.IsTracking && kind.Budget >= 2
                && SiteClassifier.Fits(block.AddressOf(index), 2, 8) && FirstLength(old, kind.Budget) >= 2;
        }

        // A guard that spins must be taken down in the native call that put it up.
        return record.Class != SiteClass.Guarded || record.Forward != 0 || !_arena.Native.Barrier.IsZero;
    }

    private void KeepOrRefuse(CodeBlock block, int index, PatchSite kind, ref OutcomeRecord outcome)
    {
        LiveSite site = block[index];
        if (site.Form == LiveForm.Original)
        {
            outcome.Change = SiteChange.KeptIndirect;
            outcome.Form = LiveForm.Original;
            _callsThroughSlot[kind.Slot] = true;
            _report.KeptIndirect++;
            return;
        }

        outcome.Change = SiteChange.NotWritten;
        _report.Add(PatchDiagnostic.Error(DiagnosticCodes.NeedsQuiescence, $"the site of {site.Slot} can't be changed while threads may be in it") with
        {
            SiteIndex = index,
            Address = site.Address,
            Found = $"class {site.Class}, {(site.Form == LiveForm.Several ? "several instructions" : "one instruction")}, {(site.HasForwarding ? "a" : "no")} forwarding island",
            Help = "Switch with SwitchMode.Quiescent; or emit the site with forwarding and register executors.",
        });
    }

    private void PlanLong(CodeBlock block, int index, PatchSite kind, LiveBody body, ref OutcomeRecord outcome)
    {
        byte[] old = block.LongBytesOf(index);
        byte[] bytes = new byte[kind.Budget];
        if (body.InPlace is null || !body.InPlace.TryWrite(block.AddressOf(index), bytes))
        {
            outcome.Action = PatchAction.LeaveAlone;
            outcome.Reason = body.InPlace is null ? body.Reason : PatchReason.OutOfReach;
            outcome.Form = LiveForm.Original;
            bytes = block.OriginalOf(index);
        }

        _callsThroughSlot[kind.Slot] |= outcome.Form == LiveForm.Original || _live;
        if (bytes.AsSpan().SequenceEqual(old))
        {
            outcome.Change = SiteChange.AlreadyThere;
            return;
        }

        if (_live)
        {
            KeepOrRefuse(block, index, kind, ref outcome);
            return;
        }

        outcome.Change = SiteChange.NotWritten;
        byte[] found = _arena.Memory.Span(block.AddressOf(index), kind.Budget).ToArray();
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

    private void ReportMissing()
    {
        for (int slot = 0; slot < _missing.Length; slot++)
        {
            if (_missing[slot])
            {
                _report.Add(PatchDiagnostic.Warning(DiagnosticCodes.MissingOperation, $"{_request.Target} has no operation for {_slots.Layout[slot]}: its sites trap"));
            }
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
