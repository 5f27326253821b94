using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Decides one site: its new bytes, or why it stays. Compares what it holds with what it should hold. Places islands, which nobody can
/// reach yet, and writes nothing else. Holds the store of islands from the first site that needs one until it is released.
/// </summary>
internal sealed unsafe class SitePlanner
{
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly PlannedSites _plan;
    private readonly ApplyReport _report;
    private readonly bool _live;
    private readonly bool _staysSwitchable;
    private readonly bool _places;
    private readonly VirtualAddress _start;
    private readonly byte* _writeView;
    private bool[]? _missing;
    private bool _holdsIslands;

    /// <summary>Makes a planner.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="slots">The slots.</param>
    /// <param name="plan">Where decisions go.</param>
    /// <param name="report">Where findings go.</param>
    /// <param name="mode">How it will be written.</param>
    /// <param name="places">
    /// Whether islands and stubs are placed; where not, the displacements of jumps to new islands stay zero.
    /// </param>
    public SitePlanner(CodeArena arena, SlotTable slots, PlannedSites plan, ApplyReport report, SwitchMode mode, bool places)
    {
        _arena = arena;
        _slots = slots;
        _plan = plan;
        _report = report;
        _places = places;
        _live = mode == SwitchMode.Live;

        // What nobody has entered yet is not to get bytes that no live switch could change again, where the slot does the same. Without a
        // barrier there are no live switches.
        _staysSwitchable = mode == SwitchMode.NotEntered && arena.Barrier != BarrierKind.None;
        _start = arena.Address;
        _writeView = arena.Memory.WriteView(_start);
    }

    /// <summary>Decides a site.</summary>
    /// <param name="number">Its block's number in the plan.</param>
    /// <param name="block">Its block.</param>
    /// <param name="index">Its place in that.</param>
    /// <param name="wish">What it is to do; there is a body.</param>
    public void Plan(int number, CodeBlock block, int index, in SiteWish wish)
    {
        LiveBody body = wish.Body!;
        ref SiteRecord record = ref block.Records[index];
        ref PlannedSite site = ref _plan.Add(number, index, body.Form, wish.After, body.Action, body.Reason);
        VirtualAddress entry = wish.Entry;
        SiteBytes bytes = default;
        byte[]? longBytes = null;
        bool ready = body.IsPlain && !record.IsForeign
            && (body.Island < 0 || TryFindIsland(record.Offset, body.Island, out entry))
            && body.TryFinish(_start + record.Offset + body.Length, entry, out bytes);
        if (ready || TryMake(block, index, body, entry, ref site, out bytes, out longBytes))
        {
            if (site.Form == LiveForm.Original && !wish.SlotServes)
            {
                _report.Add(SiteRecord.NeedsSlot(block[index], site.Reason));
            }
            else if (longBytes is not null)
            {
                PlanLong(block, index, wish, longBytes, ref site);
            }
            else
            {
                Compare(block, index, wish, bytes, ref site);
            }
        }
    }

    /// <summary>Decides a site by its finished bytes: up to 16, which say the same whatever the slots hold.</summary>
    /// <param name="number">Its block's number in the plan.</param>
    /// <param name="block">Its block.</param>
    /// <param name="index">Its place in that.</param>
    /// <param name="body">What it is: form, action, length.</param>
    /// <param name="bytes">What it is to hold.</param>
    public void PlanBytes(int number, CodeBlock block, int index, LiveBody body, SiteBytes bytes)
    {
        ref PlannedSite site = ref _plan.Add(number, index, body.Form, LiveSiteState.Bound, body.Action, body.Reason);
        Compare(block, index, new SiteWish { Body = body }, bytes, ref site);
    }

    /// <summary>Compares what a site holds with what it should hold and is to hold.</summary>
    private void Compare(CodeBlock block, int index, in SiteWish wish, SiteBytes bytes, ref PlannedSite site)
    {
        LiveBody body = wish.Body!;
        ref SiteRecord record = ref block.Records[index];
        byte* at = _writeView + record.Offset;

        // Word by word, which the compiler keeps in registers: for a site that is not written this is most of what is done.
        ulong low = *(ulong*)at & body.Mask.Low;
        ulong high = *(ulong*)(at + 8) & body.Mask.High;
        site.Length = (byte)body.Length;
        if (low != record.Low || high != block.BytesBehind(index))
        {
            SiteBytes there = new(low, high);
            _report.Add(SiteRecord.Unexpected(
                block[index], there.ToArray(body.Length), block.BytesOf(index).ToArray(body.Length)));
        }
        else if (low == bytes.Low && high == bytes.High)
        {
            site.Change = SiteChange.AlreadyThere;
            _report.AlreadyThere++;
        }
        else if (MayWrite(block, index, wish, block.BytesOf(index), ref site))
        {
            _plan.WriteLast(bytes);
        }
    }

    /// <summary>Lets the store of islands go, where it was needed. The planner is not to be used any more.</summary>
    public void Release()
    {
        if (_holdsIslands)
        {
            _arena.Islands.Release();
        }
    }

    /// <summary>Notes a site that keeps its own target.</summary>
    public void KeepLink(int number, CodeBlock block, int index)
    {
        ref SiteRecord record = ref block.Records[index];
        ref PlannedSite site = ref _plan.Add(number, index, record.Form, LiveSiteState.Linked, record.Action, record.Reason);
        site.Change = SiteChange.KeptLink;
        _report.KeptLinks++;
    }

    /// <summary>
    /// The bytes of what is out of the ordinary: a new island, a host's own original, several instructions, a target out of reach.
    /// </summary>
    /// <returns>Whether there are any; if not, a finding says why.</returns>
    private bool TryMake(
        CodeBlock block, int index, LiveBody body, VirtualAddress entry, ref PlannedSite site, out SiteBytes bytes, out byte[]? longBytes)
    {
        bytes = default;
        longBytes = null;
        ref SiteRecord record = ref block.Records[index];
        VirtualAddress address = _start + record.Offset;
        if (body.Error is not null)
        {
            _report.Add(body.Error with { SiteIndex = index, Address = body.Error.Address ?? address });
            return false;
        }

        if (body.Action == PatchAction.Trap)
        {
            WarnMissing(body.Slot);
        }

        if (body.Length > SiteBytes.MaxLength)
        {
            longBytes = new byte[body.Length];
            if (body.InPlace is null || !body.InPlace.TryWrite(address, longBytes))
            {
                site.MakeIndirect(body.InPlace is null ? body.Reason : PatchReason.OutOfReach);
                longBytes = OriginalOf(block, index, body.Slot, ref site);
            }

            return true;
        }

        ArgumentCode argument = block.ArgumentOf(index);
        if (body.OutOfLine is not null && !(body.Reads & argument.Registers).IsEmpty)
        {
            body = body.OutOfLine;
            site.Form = body.Form;
        }

        if (!TryPlace(index, record.Offset, body, argument, ref site, ref entry, out bool inReach))
        {
            return false;
        }

        if (site.IsUnplaced && body.Island >= 0)
        {
            bytes = body.Bytes;
            return true;
        }

        if (body.Form == LiveForm.InPlace)
        {
            Span<byte> several = stackalloc byte[SiteBytes.MaxLength];
            inReach = body.InPlace!.TryWrite(address, several[..body.Length]);
            bytes = SiteBytes.From(several[..body.Length]);
        }
        else if (body.Form == LiveForm.Original && record.IsForeign)
        {
            bytes = SiteBytes.From(OriginalOf(block, index, body.Slot, ref site));
        }
        else
        {
            inReach = inReach && body.TryFinish(address + body.Length, entry, out bytes);
        }

        if (!inReach)
        {
            // The call through the slot has 64 bits of reach, and costs hardly more than a direct one.
            site.MakeIndirect(PatchReason.OutOfReach);
            bytes = SiteBytes.From(block.OriginalOf(index));
        }

        return true;
    }

    /// <summary>The original of a site: its own direct call, where it is taken back to that before its slot was ever switched.</summary>
    private byte[] OriginalOf(CodeBlock block, int index, int slot, ref PlannedSite site)
    {
        if (site.State == LiveSiteState.Original && _plan.After[slot] is null && block.OwnCallOf(index) is var (own, form))
        {
            site.Form = form;
            site.Action = block.ActionOfOwnCall(index);
            return own;
        }

        return block.OriginalOf(index);
    }

    /// <summary>
    /// Finds or writes what a site's branch leads to before anything else: an island, or a stub that loads its argument.
    /// </summary>
    /// <returns>Whether there is room; if not, a finding says so.</returns>
    private bool TryPlace(
        int index, uint site, LiveBody body, in ArgumentCode argument, ref PlannedSite planned, ref VirtualAddress entry, out bool inReach)
    {
        inReach = true;
        PatchDiagnostic? error = null;
        if (body.Island >= 0 && !TryFindIsland(site, body.Island, out entry))
        {
            planned.IsUnplaced = !_places && _arena.Islands[body.Island].Fixups.All(f => _arena.Reaches(f.Target));
            inReach = planned.IsUnplaced
                || _arena.Islands.TryAdd(site, _start + site + body.Length, body.Island, argument, out entry, out error);
        }
        else if (body.Form is LiveForm.Call or LiveForm.Jump && !argument.IsNone)
        {
            if (!_arena.Arguments.TryFind(site, entry, out VirtualAddress stub))
            {
                planned.IsUnplaced = !_places && _arena.Reaches(entry);
                inReach = planned.IsUnplaced || _arena.Arguments.TryAdd(site, argument, entry, isSlot: false, out stub, out error);
            }

            entry = planned.IsUnplaced ? entry : stub; // a plan that is not written names the function
        }

        if (error is not null)
        {
            _report.Add(error with { SiteIndex = index });
        }

        return error is null;
    }

    /// <summary>
    /// Whether a site may be written in the mode asked for. Where not, and its slot does the same, it stays indirect; else a finding says
    /// why.
    /// </summary>
    private bool MayWrite(CodeBlock block, int index, in SiteWish wish, SiteBytes known, ref PlannedSite site)
    {
        ref SiteRecord record = ref block.Records[index];
        if ((!_live && !_staysSwitchable) || (record.Class <= SiteClass.Line && record.Form != LiveForm.InPlace))
        {
            return true;
        }

        // Bodies of several instructions are drained before slots are stored, guards put up behind that.
        int slot = wish.Body!.Slot;
        sbyte forward = record.Forward == 0
            ? (sbyte)0 : record.UsableForward(record.Form == LiveForm.InPlace ? _slots.Bound[slot] : _plan.After[slot]);
        if (record.CanChangeLive(_arena, known, wish.Body.Length, forward))
        {
            return true;
        }

        if (record.Form == LiveForm.Original && wish.SlotServes)
        {
            site.Change = SiteChange.KeptIndirect;
            site.MakeIndirect(PatchReason.NeedsQuiescence);
            _report.KeptIndirect++;
            return false;
        }

        if (_live)
        {
            _report.Add(SiteRecord.NeedsQuiescence(block[index]));
        }

        return !_live;
    }

    private void PlanLong(CodeBlock block, int index, in SiteWish wish, byte[] bytes, ref PlannedSite site)
    {
        byte[] known = block.LongBytesOf(index);
        Span<byte> there = _arena.Memory.Span(block.AddressOf(index), bytes.Length);
        if (!there.SequenceEqual(known))
        {
            _report.Add(SiteRecord.Unexpected(block[index], there.ToArray(), known));
        }
        else if (bytes.AsSpan().SequenceEqual(known))
        {
            site.Change = SiteChange.AlreadyThere;
            _report.AlreadyThere++;
        }
        else if (MayWrite(block, index, wish, default, ref site))
        {
            _plan.WriteLast(default);
            _plan.LongBytes.Add(_plan.Count - 1, bytes);
        }
    }

    private bool TryFindIsland(uint site, int body, out VirtualAddress address)
    {
        if (!_holdsIslands)
        {
            _arena.Islands.Hold();
            _holdsIslands = true;
        }

        return _arena.Islands.TryFind(site, body, out address);
    }

    private void WarnMissing(int slot)
    {
        _missing ??= new bool[_slots.Layout.Count];
        if (!_missing[slot])
        {
            _missing[slot] = true;
            _report.Add(PatchDiagnostic.Warning(
                DiagnosticCodes.MissingOperation, $"{_report.Target} has no operation for {_slots.Layout[slot]}: its sites trap"));
        }
    }
}
