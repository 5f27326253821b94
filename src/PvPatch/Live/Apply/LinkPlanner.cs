namespace PvPatch.Live;

/// <summary>Decides a batch about links: each site named gets its own target, or goes back to what its slot does.</summary>
internal sealed class LinkPlanner(BatchContext context, SitePlanner sites)
{
    private readonly BatchPlan _plan = context.Plan;
    private readonly BatchRequest _request = context.Request;
    private readonly Dictionary<CodeBlock, int> _numbers = [];

    /// <summary>The sites of a list. Where one is named twice, the later wish counts.</summary>
    public void Plan(IReadOnlyList<SiteLink> links)
    {
        Dictionary<LiveSite, int>? last = links.Count > 1 ? new(links.Count) : null;
        for (int i = 0; last is not null && i < links.Count; i++)
        {
            last[links[i].Site] = i;
        }

        for (int i = 0; i < links.Count; i++)
        {
            if (last is null || last[links[i].Site] == i)
            {
                Plan(links[i]);
            }
        }
    }

    /// <summary>Every site whose target lies in some blocks is taken from it.</summary>
    public void PlanUnlinking(IReadOnlyList<CodeBlock> targets)
    {
        if (!targets.Any(static b => b.LinksInto > 0))
        {
            return;
        }

        VirtualAddress[] starts = [.. targets.Select(static b => b.Address)];
        CodeBlock[] ordered = [.. targets];
        Array.Sort(starts, ordered);
        var blocks = new List<CodeBlock>();
        context.Arena.Registry.CopyTo(context.Slots, blocks);
        foreach (CodeBlock block in blocks)
        {
            for (int i = 0; i < block.SiteCount; i++)
            {
                if (block.Records[i].State == SiteState.Linked && block[i].Target is VirtualAddress target && IsInside(target, starts, ordered))
                {
                    Plan(new SiteLink(block[i], null));
                }
            }
        }
    }

    private static bool IsInside(VirtualAddress target, VirtualAddress[] starts, CodeBlock[] ordered)
    {
        int found = Array.BinarySearch(starts, target);
        int before = found >= 0 ? found : ~found - 1;
        return before >= 0 && ordered[before].Contains(target);
    }

    private void Plan(SiteLink link)
    {
        CodeBlock block = link.Site.Block;
        if (!_numbers.TryGetValue(block, out int number))
        {
            number = _plan.Blocks.Count;
            _plan.Blocks.Add(block);
            _numbers.Add(block, number);
        }

        int index = link.Site.Index;
        int kind = block.Records[index].Kind;
        if (link.Target is null)
        {
            BackendBinding? bound = _request.BindingOf(context.Slots.Kinds[kind].Slot);
            LiveBody body = bound?.Body(kind, _request.Options.InPlace && !context.IsLive) ?? context.Slots.OriginalOf(kind);
            sites.PlanSite(number, block, index, body, body.Target, bound is null ? SiteState.Original : SiteState.Bound);
        }
        else if (_request.LinkBodies!.TryGet(link, out LiveBody body, out VirtualAddress entry, out PatchDiagnostic? error))
        {
            sites.PlanSite(number, block, index, body, entry, SiteState.Linked);
        }
        else
        {
            context.Report.Add(error! with { SiteIndex = error.SiteIndex ?? index });
        }
    }
}
