using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Which sites are linked into which block, kept with the block, so that none is retired under a link and its links are found without
/// looking at others. Sites and blocks may be of different arenas, each with a patch lock of its own: one more lock stands over all links,
/// and over what else leads into blocks (<see cref="TargetHolds"/>).
/// </summary>
internal sealed class LinkLedger
{
    private static readonly Lock s_lock = new();

    private readonly CodeArena _arena;
    private readonly TargetHolds _holds;

    // Sites of this arena that could not be taken back, and the blocks they may lead to until a batch writes them again. They stay noted.
    private readonly List<(LiveSite Site, CodeBlock Target)> _faulted = [];

    public LinkLedger(CodeArena arena)
    {
        _arena = arena;
        _holds = new TargetHolds(this, arena);
    }

    /// <summary>How many sites of this arena are linked.</summary>
    public int Count { get; private set; }

    /// <summary>The block at an address, of whatever arena of this process; retired ones too until their bytes are reused.</summary>
    public CodeBlock? BlockAt(VirtualAddress address) =>
        _arena.Registry.TryFind(address, out CodeBlock? block)
            || (!_arena.Memory.Contains(address, 1) && CodeArena.TryFindInAll(address, out block)) ? block : null;

    /// <summary>How many sites are linked into a block.</summary>
    public static int CountInto(CodeBlock block)
    {
        lock (s_lock)
        {
            return block.LinksInto.Count;
        }
    }

    /// <summary>The sites, of some slots or of any, that are linked into some blocks, in order of address.</summary>
    public static List<LiveSite> LinksInto(IReadOnlyList<CodeBlock> blocks, SlotTable? slots)
    {
        var sites = new List<LiveSite>();
        lock (s_lock)
        {
            foreach (CodeBlock block in blocks)
            {
                block.LinksInto.AddTo(sites, slots);
            }
        }

        sites.Sort(static (a, b) => a.Address.CompareTo(b.Address));
        return sites;
    }

    /// <summary>Notes links that are about to be written: from here on none of their targets can be retired.</summary>
    /// <returns>Why not all of them can be; nothing is noted then.</returns>
    public PatchDiagnostic? Reserve(PlannedSites plan)
    {
        if (!MayLead(plan))
        {
            return null;
        }

        lock (s_lock)
        {
            foreach ((int index, VirtualAddress target) in plan.Links)
            {
                CodeBlock? block = BlockAt(target);
                if (block is { IsRetired: true })
                {
                    Release(plan);
                    return Retired(plan.SiteOf(index).Name, target);
                }

                block?.LinksInto.Add(plan.SiteOf(index));
            }

            if (_holds.Reserve(plan) is PatchDiagnostic retired)
            {
                Release(plan);
                return retired;
            }
        }

        return null;
    }

    /// <summary>
    /// Takes back what <see cref="Reserve"/> noted, for a batch that was taken back; not of sites that were not, for they may lead there.
    /// </summary>
    public void Release(PlannedSites plan)
    {
        if (!MayLead(plan))
        {
            return;
        }

        lock (s_lock)
        {
            foreach ((int index, VirtualAddress target) in plan.Links)
            {
                LiveSite site = plan.SiteOf(index);
                CodeBlock? block = BlockAt(target);
                if (block is null)
                {
                    continue;
                }

                if (plan.Sites[index].Change == SiteChange.Faulted)
                {
                    _faulted.Add((site, block));
                }
                else if (!ReferenceEquals(block, TargetBlockOf(site)))
                {
                    block.LinksInto.Remove(site);
                }
            }

            _holds.Release(plan);
        }
    }

    /// <summary>
    /// Forgets the links that a batch has replaced; the records still tell of them. Counts the new ones, which <see cref="Reserve"/> has
    /// noted.
    /// </summary>
    public void Publish(PlannedSites plan)
    {
        if (plan.Settings.Count > 0 || plan.Slots.Count > 0)
        {
            lock (s_lock)
            {
                _holds.Publish(plan);
            }
        }

        if (Count > 0 || _faulted.Count > 0)
        {
            lock (s_lock)
            {
                // Where a site is linked anew, its new target comes from the list, in the same order.
                int link = 0;
                for (int i = 0; i < plan.Count; i++)
                {
                    CodeBlock? kept = link < plan.Links.Count && plan.Links[link].Index == i ? BlockAt(plan.Links[link++].Target) : null;
                    LiveSite site = plan.SiteOf(i);
                    if (site.Record.State == LiveSiteState.Faulted)
                    {
                        ForgetFaulted(site, kept);
                    }
                    else if (plan.Sites[i].Change != SiteChange.KeptLink && site.Record.State == LiveSiteState.Linked)
                    {
                        Forget(site, kept);
                    }
                }
            }
        }

        Count += plan.Links.Count;
    }

    /// <summary>
    /// Counts the links of sites that could not be taken back no longer. They may still lead where they led before, and stay noted there.
    /// </summary>
    public void PublishFaults(PlannedSites plan)
    {
        lock (s_lock)
        {
            for (int i = 0; i < plan.Count; i++)
            {
                LiveSite site = plan.SiteOf(i);
                if (plan.Sites[i].Change == SiteChange.Faulted && site.Record.State == LiveSiteState.Linked)
                {
                    Count--;
                    if (TargetBlockOf(site) is CodeBlock before)
                    {
                        _faulted.Add((site, before));
                    }
                }
            }
        }
    }

    /// <summary>Makes blocks retired, and takes their own sites' links from the ledger, unless others lead into the blocks.</summary>
    /// <param name="blocks">What is to be retired.</param>
    /// <returns>Why they can't be retired; none is then.</returns>
    public PatchDiagnostic? TakeOut(CodeBlock[] blocks)
    {
        lock (s_lock)
        {
            HashSet<CodeBlock>? given = null;
            foreach (CodeBlock block in blocks)
            {
                if (block.LinksInto.Count > 0 && block.LinksInto.CountFromOutside(given ??= [.. blocks]) is var others and > 0)
                {
                    return PatchDiagnostic.Error(DiagnosticCodes.BlockLinked, "sites are still linked to the block") with
                    {
                        Address = block.Address,
                        Found = $"{others} links from other blocks",
                        Help =
                            "Unlink them before the blocks are retired: LivePatcher.Unlink(SiteScope.LinkedInto(blocks)), by each "
                            + "patcher whose sites lead there.",
                    };
                }
            }

            if (TargetHolds.Check(blocks) is PatchDiagnostic held)
            {
                return held;
            }

            ForgetFaulted(blocks);
            foreach (CodeBlock block in blocks)
            {
                block.SetRetired();
                for (int i = 0; Count > 0 && i < block.SiteCount; i++)
                {
                    if (block.Records[i].State == LiveSiteState.Linked)
                    {
                        Forget(block[i], kept: null);
                    }
                }
            }
        }

        return null;
    }

    public static PatchDiagnostic Retired(string user, VirtualAddress target) =>
        PatchDiagnostic.Error(DiagnosticCodes.BlockRetired, $"the target of {user} lies in a block that was retired") with
        {
            Address = target,
        };

    /// <summary>Why a static call can't lead into a block, if it can't.</summary>
    public static PatchDiagnostic? CheckTarget(CodeBlock? block, string user, VirtualAddress target) =>
        block is { IsRetired: true } ? Retired(user, target) : null;

    private static bool MayLead(PlannedSites plan) => plan.Links.Count > 0 || plan.Settings.Count > 0 || plan.Slots.Count > 0;

    private void Forget(LiveSite site, CodeBlock? kept)
    {
        Count--;
        CodeBlock? before = TargetBlockOf(site);
        if (!ReferenceEquals(before, kept))
        {
            before?.LinksInto.Remove(site);
        }
    }

    private void ForgetFaulted(LiveSite site, CodeBlock? kept)
    {
        for (int i = _faulted.Count - 1; i >= 0; i--)
        {
            if (_faulted[i].Site == site)
            {
                ForgetFaulted(i, kept);
            }
        }
    }

    private void ForgetFaulted(CodeBlock[] retired)
    {
        for (int i = _faulted.Count - 1; i >= 0; i--)
        {
            if (Array.IndexOf(retired, _faulted[i].Site.Block) >= 0)
            {
                ForgetFaulted(i, kept: null);
            }
        }
    }

    private void ForgetFaulted(int index, CodeBlock? kept)
    {
        (LiveSite site, CodeBlock target) = _faulted[index];
        _faulted.RemoveAt(index);
        if (!ReferenceEquals(target, kept))
        {
            target.LinksInto.Remove(site);
        }
    }

    private CodeBlock? TargetBlockOf(LiveSite site)
    {
        if (site.Record.State != LiveSiteState.Linked || site.Block.DirectTargetOf(site.Index) is not VirtualAddress entry)
        {
            return null;
        }

        // Most links lead to a block of this arena at once; its thunks and far jumps lie in no block.
        return _arena.Registry.TryFind(entry, out CodeBlock? block) ? block : BlockAt(_arena.Functions.TargetOf(entry));
    }
}
