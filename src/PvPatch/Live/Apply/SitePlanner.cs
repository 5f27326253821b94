using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>What a site is to do, the same for all sites of a kind unless they are linked.</summary>
internal struct SiteWish
{
    /// <summary>What it shall hold; nothing where it stays as it is.</summary>
    public LiveBody? Body;

    /// <summary>Where the body's displacement leads, if it has one and is no island.</summary>
    public VirtualAddress Entry;

    /// <summary>Its state when all is well.</summary>
    public LiveSiteState After;

    /// <summary>Whether a call through the slot does the same.</summary>
    public bool SlotServes;

    /// <summary>Whether a linked site is left as it is.</summary>
    public bool KeepsLinks;
}

/// <summary>
/// What the sites of a kind are to do, with the number of the changes it was found out for and the place of the change that counts.
/// </summary>
internal struct KindWish
{
    public int Stamp;
    public int Order;
    public SiteWish Wish;
}

/// <summary>A site that a change names.</summary>
/// <param name="Site">The site.</param>
/// <param name="Change">The change.</param>
/// <param name="Link">Index of its link in the change; -1 where the change is none.</param>
internal readonly record struct NamedSite(LiveSite Site, LiveChange Change, int Link)
{
    public VirtualAddress? Target => Link < 0 ? null : Change.Links[Link].Target;
}

/// <summary>
/// Decides one site: its new bytes, or why it stays. Compares what it holds with what it should hold. Places islands, which nobody can
/// reach yet, and writes nothing else.
/// </summary>
internal sealed unsafe class SitePlanner
{
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly PlannedSites _plan;
    private readonly BatchReport _report;
    private readonly bool _live;
    private readonly bool _staysSwitchable;
    private readonly bool _places;
    private readonly VirtualAddress _start;
    private readonly byte* _writeView;
    private bool[]? _missing;

    /// <summary>Makes a planner.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="slots">The slots.</param>
    /// <param name="plan">Where decisions go.</param>
    /// <param name="report">Where findings go.</param>
    /// <param name="places">Whether islands are placed; where not, the displacements of jumps to new ones stay zero.</param>
    public SitePlanner(CodeArena arena, SlotTable slots, PlannedSites plan, BatchReport report, bool places)
    {
        _arena = arena;
        _slots = slots;
        _plan = plan;
        _report = report;
        _places = places;
        _live = report.Mode == SwitchMode.Live;

        // What nobody has entered yet is not to get bytes that no live switch could change again, where the slot does the same. Without a
        // barrier there are no live switches.
        _staysSwitchable = report.Mode == SwitchMode.NotEntered && arena.Barrier != BarrierKind.None;
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
        var made = new Made(body);
        VirtualAddress entry = wish.Entry;
        bool ready = body.IsPlain && !record.IsForeign
            && (body.Island is null || _arena.Islands.TryFind(record.Offset, body.Island, out entry))
            && body.TryFinish(_start + record.Offset + body.Length, entry, out made.Bytes);
        if (!ready && !TryMake(block, index, body, entry, ref made))
        {
            return;
        }

        ref OutcomeRecord outcome = ref _plan.AddOutcome(number, index);
        outcome.Form = made.Form;
        outcome.Action = made.Action;
        outcome.Reason = made.Reason;
        outcome.Set(SiteChange.NotWritten, wish.After); // until it is
        if (made.Form == LiveForm.Original && !wish.SlotServes)
        {
            _report.Add(NeedsSlot(block[index], made));
            return;
        }

        byte* at = _writeView + record.Offset;
        if (made.Long is not null)
        {
            PlanLong(block, index, wish, made.Long, ref outcome);
            return;
        }

        SiteBytes known = block.BytesOf(index);
        var there = new SiteBytes(*(ulong*)at & body.Mask.Low, *(ulong*)(at + 8) & body.Mask.High);
        if (there != known)
        {
            _report.Add(Unexpected(block[index], there.ToArray(body.Length), known.ToArray(body.Length)));
        }
        else if (there == made.Bytes)
        {
            outcome.Change = SiteChange.AlreadyThere;
        }
        else if (MayWrite(block, index, wish, known, ref outcome))
        {
            _plan.AddWrite(made.Bytes, body.Length);
            if (made.IsUnplaced)
            {
                _plan.Unplaced.Add(_plan.OutcomeCount - 1);
            }
        }
    }

    /// <summary>Notes a site that keeps its own target.</summary>
    public void KeepLink(int number, CodeBlock block, int index)
    {
        ref SiteRecord record = ref block.Records[index];
        ref OutcomeRecord outcome = ref _plan.AddOutcome(number, index);
        outcome.Form = record.Form;
        outcome.Action = record.Action;
        outcome.Reason = record.Reason;
        outcome.Set(SiteChange.KeptLink, LiveSiteState.Linked);
        _report.KeptLinks++;
    }

    /// <summary>
    /// The bytes of what is out of the ordinary: a new island, a host's own original, several instructions, a target out of reach.
    /// </summary>
    /// <returns>Whether there are any; if not, a finding says why.</returns>
    private bool TryMake(CodeBlock block, int index, LiveBody body, VirtualAddress entry, ref Made made)
    {
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
            byte[] bytes = new byte[body.Length];
            made.Long = body.InPlace is not null && body.InPlace.TryWrite(address, bytes) ? bytes : made.Indirect(block.OriginalOf(index), body.InPlace is null ? body.Reason : PatchReason.OutOfReach);
            return true;
        }

        bool inReach = true;
        if (body.Island is not null && !_arena.Islands.TryFind(record.Offset, body.Island, out entry))
        {
            if (!_places && body.Island.Body.Fixups.All(f => _arena.Reaches(f.Target)))
            {
                made.Bytes = body.Bytes;
                made.IsUnplaced = true;
                return true;
            }

            inReach = _arena.Islands.TryAdd(record.Offset, address + body.Length, body.Island, out entry, out PatchDiagnostic? error);
            if (error is not null)
            {
                _report.Add(error with { SiteIndex = index });
                return false;
            }
        }

        if (body.Form == LiveForm.InPlace)
        {
            Span<byte> several = stackalloc byte[SiteBytes.MaxLength];
            inReach = body.InPlace!.TryWrite(address, several[..body.Length]);
            made.Bytes = SiteBytes.From(several[..body.Length]);
        }
        else if (body.Form == LiveForm.Original && record.IsForeign)
        {
            made.Bytes = SiteBytes.From(block.OriginalOf(index));
        }
        else
        {
            inReach = inReach && body.TryFinish(address + body.Length, entry, out made.Bytes);
        }

        if (!inReach)
        {
            // The call through the slot has 64 bits of reach, and costs hardly more than a direct one.
            made.Bytes = SiteBytes.From(made.Indirect(block.OriginalOf(index), PatchReason.OutOfReach));
        }

        return true;
    }

    /// <summary>
    /// Whether a site may be written in the mode asked for. Where not, and its slot does the same, it stays indirect; else a finding says
    /// why.
    /// </summary>
    private bool MayWrite(CodeBlock block, int index, in SiteWish wish, SiteBytes known, ref OutcomeRecord outcome)
    {
        ref SiteRecord record = ref block.Records[index];
        if ((!_live && !_staysSwitchable) || (record.Class <= SiteClass.Line && record.Form != LiveForm.InPlace))
        {
            return true;
        }

        // Bodies of several instructions are drained before slots are stored, guards put up behind that.
        int slot = wish.Body!.Slot;
        sbyte forward = SiteRules.UsableForward(record, record.Form == LiveForm.InPlace ? _slots.Bound[slot] : _plan.After[slot]);
        if (SiteRules.CanChangeLive(_arena, record, known, wish.Body.Length, forward))
        {
            return true;
        }

        if (record.Form == LiveForm.Original && wish.SlotServes)
        {
            outcome.Change = SiteChange.KeptIndirect;
            outcome.Form = LiveForm.Original;
            outcome.Action = PatchAction.LeaveAlone;
            outcome.Reason = PatchReason.NeedsQuiescence;
            _report.KeptIndirect++;
            return false;
        }

        if (_live)
        {
            _report.Add(SiteRules.NeedsQuiescence(block[index]));
        }

        return !_live;
    }

    private void PlanLong(CodeBlock block, int index, in SiteWish wish, byte[] bytes, ref OutcomeRecord outcome)
    {
        byte[] known = block.LongBytesOf(index);
        Span<byte> there = _arena.Memory.Span(block.AddressOf(index), bytes.Length);
        if (!there.SequenceEqual(known))
        {
            _report.Add(Unexpected(block[index], there.ToArray(), known));
        }
        else if (bytes.AsSpan().SequenceEqual(known))
        {
            outcome.Change = SiteChange.AlreadyThere;
        }
        else if (MayWrite(block, index, wish, default, ref outcome))
        {
            _plan.LongWrites.Add(new LongWrite(block, index, _plan.OutcomeCount - 1, known, bytes));
        }
    }

    private void WarnMissing(int slot)
    {
        _missing ??= new bool[_slots.Layout.Count];
        if (!_missing[slot])
        {
            _missing[slot] = true;
            _report.Add(PatchDiagnostic.Warning(DiagnosticCodes.MissingOperation, $"{_report.Target} has no operation for {_slots.Layout[slot]}: its sites trap"));
        }
    }

    private static PatchDiagnostic NeedsSlot(LiveSite site, in Made made) =>
        PatchDiagnostic.Error(DiagnosticCodes.SiteNeedsSlot, $"the site of {site.Slot} can do this through its slot only, and the slot does something else") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Found = made.Reason.ToString(),
            Help = "Switch the slot, or all sites, to the backend.",
        };

    private static PatchDiagnostic Unexpected(LiveSite site, byte[] found, byte[] expected) =>
        PatchDiagnostic.Error(DiagnosticCodes.UnexpectedLiveBytes, "the site holds bytes that were not put there by this arena's patchers") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Found = HexBytes.Format(found),
            Expected = HexBytes.Format(expected),
            Help = "Something else writes the code: a debugger's breakpoint, or a host that patches by hand.",
        };

    /// <summary>What a body comes to at a site.</summary>
    private struct Made(LiveBody body)
    {
        public SiteBytes Bytes;
        public LiveForm Form = body.Form;
        public PatchAction Action = body.Action;
        public PatchReason Reason = body.Reason;
        public byte[]? Long;
        public bool IsUnplaced;

        /// <summary>Makes it the emitted call, for a reason.</summary>
        public byte[] Indirect(byte[] original, PatchReason reason)
        {
            Form = LiveForm.Original;
            Action = PatchAction.LeaveAlone;
            Reason = reason;
            return original;
        }
    }
}
