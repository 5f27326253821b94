namespace PvPatch.Live;

/// <summary>
/// Decides a set of changes: finds for every site the change that counts there, has the site decided, and decides every slot that is set.
/// What is wrong goes into the report.
/// </summary>
/// <remarks>
/// Which change counts:
/// <code>
///                       the later one is
/// the earlier one is    a switch or bind of all, slot, blocks    anything else
/// a link                the link stays, unless overridden        the later one
/// anything else         the later one                            the later one
/// </code>
/// A site linked before the batch counts as an earlier link.
/// </remarks>
internal sealed class LivePlanner
{
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly LinkBodies _linkBodies;
    private readonly Dictionary<CodeBlock, int> _numbers = [];

    // The change for all sites of each slot, and for all sites of some blocks; the slots that are set.
    private readonly LiveChange?[] _bySlot;
    private readonly bool[] _isSet;
    private readonly Dictionary<CodeBlock, LiveChange> _byBlock = [];

    // Sites that are named one by one, and for each the place of the last mention.
    private readonly List<NamedSite> _named = [];
    private readonly Dictionary<LiveSite, int> _last = [];

    // What each kind of site is to do, found out when the first is come to. Another stamp: for other changes.
    private KindWish[] _wishes = [];
    private int _stamp;
    private LiveChange? _wishesOf;

    private SwitchOptions _options = new();
    private PlannedSites _plan = null!; // there is one while Run is under way
    private BatchReport _report = null!;
    private SitePlanner _sites = null!;

    /// <summary>Makes a planner, to be used under the patch lock, again and again.</summary>
    public LivePlanner(CodeArena arena, SlotTable slots, LinkBodies linkBodies)
    {
        _arena = arena;
        _slots = slots;
        _linkBodies = linkBodies;
        _bySlot = new LiveChange?[slots.Layout.Count];
        _isSet = new bool[slots.Layout.Count];
    }

    /// <summary>Fills a plan.</summary>
    /// <param name="changes">What is wanted.</param>
    /// <param name="options">How it will be written.</param>
    /// <param name="plan">The plan, empty.</param>
    /// <param name="report">Where findings go.</param>
    /// <param name="places">Whether islands are placed; see <see cref="SitePlanner"/>.</param>
    public void Run(LiveChanges changes, SwitchOptions options, PlannedSites plan, BatchReport report, bool places)
    {
        _options = options;
        _plan = plan;
        _report = report;
        _sites = new SitePlanner(_arena, _slots, plan, report, places);
        plan.After = [.. _slots.Bound];
        try
        {
            bool all = false;
            foreach (LiveChange change in changes.List)
            {
                all |= Sort(change);
            }

            Walk(all);
            PlanSlots();
        }
        finally
        {
            Array.Clear(_bySlot);
            Array.Clear(_isSet);
            _byBlock.Clear();
            _named.Clear();
            _last.Clear();
            _numbers.Clear();
            _wishesOf = null;
        }
    }

    private void Walk(bool all)
    {
        _stamp++;
        using (_arena.Islands.Hold())
        {
            if (all)
            {
                _arena.Registry.CopyTo(_slots, _plan.Blocks);
            }
            else
            {
                _plan.Blocks.AddRange(_byBlock.Keys);
            }

            int walked = _plan.Blocks.Count;
            for (int i = 0; i < _named.Count && (walked > 0 || _named.Count > 1); i++)
            {
                _last[_named[i].Site] = i;
            }

            for (int i = 0; i < walked; i++)
            {
                PlanBlock(i);
            }

            PlanNamed(walked);
        }
    }

    /// <summary>Puts a change where its sites will look for it.</summary>
    /// <returns>Whether all blocks must be looked at.</returns>
    private bool Sort(LiveChange change)
    {
        SiteScope scope = change.Scope;
        if (change.Kind == ChangeKind.Link)
        {
            for (int i = 0; i < change.Links.Count; i++)
            {
                _named.Add(new NamedSite(change.Links[i].Site, change, i));
            }

            return false;
        }

        switch (scope.Kind)
        {
            case ScopeKind.Sites:
                _named.AddRange(scope.OnlySites.Select(s => new NamedSite(s, change, -1)));
                return false;
            case ScopeKind.LinkedInto:
                _named.AddRange(LinkLedger.LinksInto(scope.OnlyBlocks, _slots).Select(s => new NamedSite(s, change, -1)));
                return false;
            case ScopeKind.Blocks:
                foreach (CodeBlock block in scope.OnlyBlocks)
                {
                    _byBlock[block] = change;
                }

                return false;
            default:
                for (int slot = 0; slot < _bySlot.Length; slot++)
                {
                    if (scope.OnlySlot is null || scope.OnlySlot.Index == slot)
                    {
                        _bySlot[slot] = change;
                        _isSet[slot] |= change.SetsSlots;
                        _plan.After[slot] = change.SetsSlots ? change.Binding : _plan.After[slot];
                    }
                }

                return true;
        }
    }

    private void PlanBlock(int number)
    {
        CodeBlock block = _plan.Blocks[number];
        LiveChange? byBlock = _byBlock.Count > 0 ? _byBlock.GetValueOrDefault(block) : null;
        if (!ReferenceEquals(byBlock, _wishesOf))
        {
            _wishesOf = byBlock;
            _stamp++;
        }

        if (_wishes.Length < _slots.Kinds.Count)
        {
            Array.Resize(ref _wishes, Math.Max(_slots.Kinds.Count, 2 * _wishes.Length));
        }

        SiteRecord[] records = block.Records;
        for (int i = 0; i < records.Length; i++)
        {
            ref SiteRecord record = ref records[i];
            ref KindWish kind = ref _wishes[record.Kind];
            if (kind.Stamp != _stamp)
            {
                kind = WishOf(record.Kind, byBlock);
            }

            if (_last.Count > 0 && _last.TryGetValue(new LiveSite(block, i), out int named))
            {
                PlanContested(number, block, i, named, kind);
            }
            else if (record.State == LiveSiteState.Linked && kind.Wish.KeepsLinks)
            {
                _sites.KeepLink(number, block, i);
            }
            else if (kind.Wish.Body is not null)
            {
                _sites.Plan(number, block, i, kind.Wish);
            }
        }
    }

    /// <summary>A site that is named, in a block that is looked at for another change too.</summary>
    private void PlanContested(int number, CodeBlock block, int index, int named, in KindWish kind)
    {
        NamedSite site = _named[named];
        if (site.Change.Order > kind.Order || (site.Target is not null && kind.Wish.KeepsLinks))
        {
            PlanNamed(number, site);
        }
        else if (kind.Wish.Body is not null)
        {
            _sites.Plan(number, block, index, kind.Wish);
        }
    }

    /// <summary>The named sites in blocks that were not walked.</summary>
    private void PlanNamed(int walked)
    {
        for (int i = 0; i < walked && _named.Count > 0; i++)
        {
            _numbers.Add(_plan.Blocks[i], i);
        }

        for (int i = 0; i < _named.Count; i++)
        {
            NamedSite site = _named[i];
            if (_last.Count > 0 && _last[site.Site] != i)
            {
                continue;
            }

            if (!_numbers.TryGetValue(site.Site.Block, out int number))
            {
                number = _plan.Blocks.Count;
                _plan.Blocks.Add(site.Site.Block);
                _numbers.Add(site.Site.Block, number);
            }

            if (number >= walked)
            {
                PlanNamed(number, site);
            }
        }
    }

    private void PlanNamed(int number, NamedSite site)
    {
        (CodeBlock block, int index) = (site.Site.Block, site.Site.Index);
        int kind = block.Records[index].Kind;
        if (site.Target is not VirtualAddress target)
        {
            SiteWish wish = WishOf(site.Change, kind, _slots.Kinds[kind].Slot);
            if (wish.Body is not null)
            {
                _sites.Plan(number, block, index, wish);
            }

            return;
        }

        SiteLink link = site.Change.Links[site.Link];
        if (!_linkBodies.TryGet(link, out LiveBody body, out VirtualAddress entry, out PatchDiagnostic? error))
        {
            _report.Add(error! with { SiteIndex = error.SiteIndex ?? index });
            return;
        }

        int outcome = _plan.OutcomeCount;
        _sites.Plan(number, block, index, new SiteWish { Body = body, Entry = entry, After = LiveSiteState.Linked });
        if (_plan.OutcomeCount > outcome)
        {
            _plan.Links.Add((outcome, target));
        }
    }

    private KindWish WishOf(int kind, LiveChange? byBlock)
    {
        int slot = _slots.Kinds[kind].Slot;
        LiveChange? bySlot = _bySlot[slot];
        LiveChange? change = bySlot is null || byBlock?.Order > bySlot.Order ? byBlock : bySlot;
        return new KindWish { Stamp = _stamp, Order = change?.Order ?? -1, Wish = change is null ? default : WishOf(change, kind, slot) };
    }

    /// <summary>What a change asks of the sites of a kind, links aside.</summary>
    private SiteWish WishOf(LiveChange change, int kind, int slot)
    {
        BackendBinding? after = _plan.After[slot];
        bool inPlace = _options.InPlace && _options.Mode != SwitchMode.Live;
        SiteWish wish = default;
        switch (change.Kind)
        {
            case ChangeKind.Use:
                wish.Body = change.Binding!.Body(kind, inPlace);
                wish.After = LiveSiteState.Bound;
                wish.SlotServes = ReferenceEquals(after, change.Binding);
                wish.KeepsLinks = !change.Scope.NamesSites && !_options.OverridesLinks;
                break;
            case ChangeKind.Revert:
                wish.Body = _slots.OriginalOf(kind);
                wish.After = LiveSiteState.Original;
                wish.SlotServes = true;
                break;
            default: // bind, unlink, a link without a target
                wish.Body = after?.Body(kind, inPlace) ?? (change.Kind == ChangeKind.Bind ? null : _slots.OriginalOf(kind));
                wish.After = after is null ? LiveSiteState.Original : LiveSiteState.Bound;
                wish.SlotServes = true;
                wish.KeepsLinks = change.Kind == ChangeKind.Bind && !_options.OverridesLinks;
                break;
        }

        wish.Entry = wish.Body?.Target ?? default;
        return wish;
    }

    /// <summary>
    /// Every slot that is set must be able to hold a function that does the operation at every site of the slot: also at those of retired
    /// blocks that a thread may still be in, and at those of
    /// blocks that are emitted next.
    /// </summary>
    private void PlanSlots()
    {
        for (int slot = 0; slot < _isSet.Length; slot++)
        {
            if (!_isSet[slot])
            {
                continue;
            }

            BackendBinding.Function function = _plan.After[slot]!.FunctionOf(slot);
            VirtualAddress there = _slots[slot];
            if (function.Error is not null)
            {
                _report.Add(function.Error);
            }
            else if (there != _slots.Expected(slot))
            {
                _report.Add(PatchDiagnostic.Error(DiagnosticCodes.UnexpectedLiveBytes, $"the slot {_slots.Layout[slot]} holds a function that was not put there by this arena's patchers") with
                {
                    Address = _slots.AddressOf(slot),
                    Found = there.ToString(),
                    Expected = _slots.Expected(slot).ToString(),
                    Help = "Something else writes the slots: bind a backend instead.",
                });
            }
            else
            {
                _plan.Slots.Add(new SlotWrite(slot, there, function.Address));
            }
        }
    }
}
