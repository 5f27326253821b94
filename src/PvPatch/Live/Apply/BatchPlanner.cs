using PvPatch.Machine;

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
    private readonly BatchContext _context;
    private readonly SitePlanner _sites;
    private readonly bool _live;
    private readonly bool _inPlace;
    private readonly bool _canGuard;
    private readonly SiteState _after;
    private readonly VirtualAddress _start;
    private readonly byte* _writeView;

    public BatchPlanner(BatchContext context)
    {
        _context = context;
        _sites = new SitePlanner(context);
        _arena = context.Arena;
        _slots = context.Slots;
        _plan = context.Plan;
        _request = context.Request;
        _report = context.Report;
        _live = context.IsLive;
        _inPlace = _request.Options.InPlace && !_live;
        _after = _request.Revert ? SiteState.Original : SiteState.Bound;
        _canGuard = !_arena.Native.Barrier.IsZero;
        _start = _arena.Address;
        _writeView = _arena.Memory.WriteView(_start);
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
        else if (_request.Links is not null)
        {
            new LinkPlanner(_context, _sites).Plan(_request.Links);
        }
        else if (_request.UnlinkedFrom is not null)
        {
            new LinkPlanner(_context, _sites).PlanUnlinking(_request.UnlinkedFrom);
        }
        else
        {
            if (_request.OnlyBlocks is null)
            {
                _arena.Registry.CopyTo(_slots, _plan.Blocks);
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
                _sites.PlanSite(number, site.Block, site.Index, body, body.Target, _after);
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

            if (record.State == SiteState.Linked && !_request.OverridesLinks)
            {
                _sites.KeepLink(number, block, i);
                continue;
            }

            LiveBody? body = BodyOf(record.Kind);
            if (body is not null && !TryPlanPlain(number, block, i, body))
            {
                _sites.PlanSite(number, block, i, body, body.Target, _after);
            }
        }
    }

    /// <summary>
    /// The way of nearly all sites, in one piece: the same bytes and checks as <see cref="SitePlanner"/>, which does whatever is out of the ordinary. Where
    /// this one gives up, it has left no trace.
    /// </summary>
    private bool TryPlanPlain(int blockNumber, CodeBlock block, int index, LiveBody body)
    {
        ref SiteRecord record = ref block.Records[index];
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
        if (low != record.Low || high != block.BytesBehind(index))
        {
            return false;
        }

        bool same = low == bytes.Low && high == bytes.High;
        _context.CallsThroughSlot[body.Slot] |= body.Form == LiveForm.Original || (_live && (record.Form == LiveForm.Original || record.Forward != 0));
        ref OutcomeRecord outcome = ref _plan.AddOutcome(blockNumber, index);
        outcome.Form = body.Form;
        outcome.Action = body.Action;
        outcome.Reason = body.Reason;
        outcome.Set(same ? SiteChange.AlreadyThere : SiteChange.NotWritten, _after);
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
            else if (_context.CallsThroughSlot[slot])
            {
                _report.Add(function.Error);
            }
        }
    }
}
