namespace PvPatch.Live;

/// <content>What the changes ask of the sites of a kind.</content>
internal sealed partial class LivePlanner
{
    private SiteWish WishOf(int kind, LiveChange? byBlock, int cut)
    {
        int slot = _slots.KindOf(kind).Slot;
        if (slot >= _bySlot.Length)
        {
            return new SiteWish { Order = -1, Cut = -1, Stamp = _stamp }; // follows settings: no switch asks anything of it
        }

        LiveChange? bySlot = _bySlot[slot];
        LiveChange? change = bySlot is null || byBlock?.Order > bySlot.Order ? byBlock : bySlot;
        cut = Math.Max(cut, _cutBySlot[slot]);
        SiteWish wish = change is null ? default : WishOf(change, kind, slot, isCut: cut >= 0);
        wish.Order = change?.Order ?? -1;
        wish.Cut = cut;
        wish.Stamp = _stamp;
        return wish;
    }

    /// <summary>What a change asks of the sites of a kind, links aside.</summary>
    private SiteWish WishOf(LiveChange change, int kind, int slot, bool isCut = false)
    {
        BackendBinding? after = _plan.After[slot];
        bool inPlace = _options.InPlace && _options.Mode != SwitchMode.Live;
        SiteWish wish = default;
        switch (change.Kind)
        {
            case ChangeKind.Use:
                wish.Body = change.Binding!.Body(kind, inPlace);
                wish.After = LiveSiteState.Bound;
                wish.SlotServes = ReferenceEquals(after?.Backend, change.Backend); // perhaps bound by a patcher before this one
                wish.KeepsLinks = !change.Scope.NamesSites && !_options.OverridesLinks;
                break;
            case ChangeKind.Revert:
                wish.Body = _slots.OriginalOf(kind);
                wish.After = LiveSiteState.Original;
                wish.SlotServes = true;
                break;
            default: // bind, unlink, a link without a target
                wish.Body = after?.Body(kind, inPlace) ?? (change.Kind == ChangeKind.Bind && !isCut ? null : _slots.OriginalOf(kind));
                wish.After = after is null ? LiveSiteState.Original : LiveSiteState.Bound;
                wish.SlotServes = true;
                wish.KeepsLinks = change.Kind == ChangeKind.Bind && !_options.OverridesLinks;
                break;
        }

        wish.Entry = wish.Body?.Target ?? default;
        return wish;
    }
}
