using System.Runtime.InteropServices;
using PvPatch.Plans;

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
/// A site linked before the batch counts as an earlier link. A link that something else has ended in between is no more, as if the changes
/// had been applied one after the other.
/// </remarks>
internal sealed partial class LivePlanner
{
    private const int KeptNames = 1024;

    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly LiveBodyBuilder _builder;
    private readonly SettingPlanner _settings;

    // The change for all sites of each slot, and for all sites of each block of the plan, if any are named; the slots that are set.
    private readonly LiveChange?[] _bySlot;
    private readonly bool[] _isSet;
    private readonly List<LiveChange?> _byBlock = [];

    // The last change that takes links from all sites of each slot, and of each block.
    private readonly int[] _cutBySlot;
    private readonly List<int> _cutByBlock = [];

    // Sites that are named one by one, and the last change that names each.
    private readonly Dictionary<LiveSite, NamedBy> _named = [];

    // What each kind of site is to do, found out when the first is come to. Another stamp: for other changes.
    private SiteWish[] _wishes = [];
    private int _stamp;
    private LiveChange? _wishesOf;
    private int _wishesCut = -1;
    private SwitchOptions _options = new();
    private PlannedSites _plan = null!; // there is one while Run is under way
    private ApplyReport _report = null!;
    private SitePlanner _sites = null!;

    /// <summary>Makes a planner, to be used under the patch lock, again and again.</summary>
    public LivePlanner(CodeArena arena, SlotTable slots, LiveBodyBuilder builder)
    {
        _arena = arena;
        _slots = slots;
        _builder = builder;
        _settings = new SettingPlanner(arena, slots, builder);
        _bySlot = new LiveChange?[slots.Layout.Count];
        _isSet = new bool[slots.Layout.Count];
        _cutBySlot = new int[slots.Layout.Count];
    }

    /// <summary>Fills a plan.</summary>
    /// <param name="changes">What is wanted.</param>
    /// <param name="options">How it will be written.</param>
    /// <param name="plan">The plan, empty.</param>
    /// <param name="report">Where findings go.</param>
    /// <param name="places">Whether islands are placed; see <see cref="SitePlanner"/>.</param>
    public void Run(LiveChanges changes, SwitchOptions options, PlannedSites plan, ApplyReport report, bool places)
    {
        _options = options;
        _plan = plan;
        _report = report;
        _sites = new SitePlanner(_arena, _slots, plan, report, options.Mode, places);
        plan.After = [.. _slots.Bound];
        plan.SlotTable = _slots;
        Array.Fill(_cutBySlot, -1);
        try
        {
            Sort(changes.List);
            Walk();
            _settings.Run(changes, plan, report, _sites);
            PlanSlots();
        }
        finally
        {
            _sites.Release();
            Array.Clear(_bySlot);
            Array.Clear(_isSet);
            _byBlock.Clear();
            _cutByBlock.Clear();
            _named.Clear();
            _named.TrimExcess(Math.Min(_named.Capacity, KeptNames));
            (_wishesOf, _wishesCut) = (null, -1);
            (_sites, _report, _plan, _options) = (null!, null!, null!, new()); // not to be kept alive from here
        }
    }

    /// <summary>Puts each change where its sites will look for it, and the blocks that are walked into the plan.</summary>
    private void Sort(List<LiveChange> changes)
    {
        bool all = false;
        foreach (LiveChange change in changes)
        {
            SiteScope scope = change.Scope;
            change.Binding?.ForgetRetired();
            if (change.Kind == ChangeKind.Link)
            {
                _named.EnsureCapacity(change.Links.Count);
                for (int i = 0; i < change.Links.Count; i++)
                {
                    _named[change.Links[i].Site] = new NamedBy(change, i);
                }
            }
            else if (scope.NamesSites)
            {
                foreach (LiveSite site in scope.OnlySites ?? LinkLedger.LinksInto(scope.LinkTargets!, _slots))
                {
                    _named[site] = new NamedBy(change, -1);
                }
            }
            else if (scope.OnlyBlocks is null)
            {
                all = true;
                SortBySlot(change);
            }
        }

        if (all)
        {
            _arena.Registry.CopyTo(_slots, _plan.Blocks);
            _plan.NumberBlocks();
        }

        foreach (LiveChange change in changes)
        {
            for (int i = 0; i < (change.Scope.OnlyBlocks?.Count ?? 0); i++)
            {
                int number = _plan.NumberOf(change.Scope.OnlyBlocks![i]);
                CollectionsMarshal.SetCount(_byBlock, Math.Max(_byBlock.Count, number + 1));
                _byBlock[number] = change;
                while (_cutByBlock.Count <= number)
                {
                    _cutByBlock.Add(-1);
                }

                _cutByBlock[number] = TakesLinks(change) ? change.Order : _cutByBlock[number];
            }
        }
    }

    private static bool TakesLinks(LiveChange change) => change.Kind is ChangeKind.Unlink or ChangeKind.Revert;

    private void SortBySlot(LiveChange change)
    {
        for (int slot = 0; slot < _bySlot.Length; slot++)
        {
            if (change.Scope.OnlySlot is null || change.Scope.OnlySlot.Index == slot)
            {
                _bySlot[slot] = change;
                _cutBySlot[slot] = TakesLinks(change) ? change.Order : _cutBySlot[slot];
                _isSet[slot] |= change.SetsSlots;
                _plan.After[slot] = change.SetsSlots ? change.Binding : _plan.After[slot];
            }
        }
    }

    private void Walk()
    {
        _stamp++;
        int walked = _plan.Blocks.Count;
        for (int i = 0; i < walked; i++)
        {
            PlanBlock(i);
        }

        // The named sites in blocks that were not walked.
        foreach ((LiveSite site, NamedBy named) in _named)
        {
            int number = _plan.NumberOf(site.Block);
            if (number >= walked)
            {
                PlanNamed(number, site, named);
            }
        }
    }

    private void PlanBlock(int number)
    {
        CodeBlock block = _plan.Blocks[number];
        LiveChange? byBlock = number < _byBlock.Count ? _byBlock[number] : null;
        int cut = number < _cutByBlock.Count ? _cutByBlock[number] : -1;
        if (!ReferenceEquals(byBlock, _wishesOf) || cut != _wishesCut)
        {
            (_wishesOf, _wishesCut) = (byBlock, cut);
            _stamp++;
        }

        if (_wishes.Length < _slots.KindCount)
        {
            Array.Resize(ref _wishes, Math.Max(_slots.KindCount, 2 * _wishes.Length));
        }

        SiteRecord[] records = block.Records;
        for (int i = 0; i < records.Length; i++)
        {
            ref SiteRecord record = ref records[i];
            ref SiteWish wish = ref _wishes[record.Kind];
            if (wish.Stamp != _stamp)
            {
                wish = WishOf(record.Kind, byBlock, cut);
            }

            NamedBy named = default;
            bool isNamed = _named.Count > 0 && _named.TryGetValue(new LiveSite(block, i), out named);
            bool isLink = isNamed && named.Target is not null;
            if (isNamed && (named.Change.Order > wish.Order || (isLink && wish.KeepsLinks && named.Change.Order > wish.Cut)))
            {
                PlanNamed(number, block[i], named);
            }
            else if (record.State == LiveSiteState.Linked && wish.KeepsLinks && wish.Cut < 0 && (!isNamed || isLink))
            {
                _sites.KeepLink(number, block, i);
            }
            else if (wish.Body is not null)
            {
                _sites.Plan(number, block, i, wish);
            }
            else if (isNamed && !isLink)
            {
                PlanNamed(number, block[i], named);
            }
        }
    }

    private void PlanNamed(int number, LiveSite site, NamedBy named)
    {
        (CodeBlock block, int index) = (site.Block, site.Index);
        int kind = block.Records[index].Kind;
        if (block.SettingOf(index) is SettingSite setting)
        {
            _report.Add(PatchDiagnostic.Error(DiagnosticCodes.SiteOfSetting,
                $"the site follows \"{setting.Name}\": it has no operation that could be switched, linked or reverted") with
            {
                SiteIndex = index,
                Address = site.Address,
                Help = "Change the setting instead (LiveChanges.Enable, Disable, Set).",
            });
            return;
        }

        if (named.Target is not VirtualAddress target)
        {
            SiteWish wish = WishOf(named.Change, kind, _slots.KindOf(kind).Slot);
            if (wish.Body is not null)
            {
                _sites.Plan(number, block, index, wish);
            }

            return;
        }

        if (!_builder.TryGetLink(named.Change.Links[named.Link], out LiveBody body, out VirtualAddress entry, out PatchDiagnostic? error))
        {
            _report.Add(error! with { SiteIndex = index });
            return;
        }

        _plan.Links.Add((_plan.Count, target));
        _sites.Plan(number, block, index, new SiteWish { Body = body, Entry = entry, After = LiveSiteState.Linked });
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

            VirtualAddress there = _slots[slot];
            if (!_plan.After[slot]!.TryGetFunction(slot, out VirtualAddress function, out PatchDiagnostic? error))
            {
                _report.Add(error!);
            }
            else if (there != _slots.Expected(slot))
            {
                _report.Add(PatchDiagnostic.Error(DiagnosticCodes.UnexpectedLiveBytes,
                    $"the slot {_slots.Layout[slot]} holds a function that was not put there by this arena's patchers") with
                {
                    Address = _slots.AddressOf(slot),
                    Found = there.ToString(),
                    Expected = _slots.Expected(slot).ToString(),
                    Help = "Something else writes the slots: bind a backend instead.",
                });
            }
            else
            {
                _plan.Slots.Add(new SlotWrite(slot, there, function));
            }
        }
    }

    /// <summary>The change that names a site, and the place of the site's link in it, or -1.</summary>
    private readonly record struct NamedBy(LiveChange Change, int Link)
    {
        public VirtualAddress? Target => Link < 0 ? null : Change.Links[Link].Target;
    }
}
