namespace PvPatch.Live;

/// <summary>How many sites are linked, and how many of them to each block: so that no block is retired under a link. Kept under the patch lock.</summary>
internal sealed class LinkLedger
{
    /// <summary>How many sites are linked.</summary>
    public int Count { get; private set; }

    /// <summary>Notes a site that is linked now.</summary>
    public void Add(LiveSite site) => Change(site, 1);

    /// <summary>Notes that a site will be linked no more, or elsewhere. It still holds its link.</summary>
    public void Remove(LiveSite site) => Change(site, -1);

    /// <summary>Takes the links of some blocks' own sites from the ledger, unless others lead into the blocks.</summary>
    /// <param name="blocks">What is to be retired.</param>
    /// <returns>Why they can't be retired.</returns>
    public PatchDiagnostic? TakeOut(CodeBlock[] blocks)
    {
        if (Count == 0 && !Array.Exists(blocks, static b => b.LinksInto > 0))
        {
            return null; // no site of this arena is linked, and none of another to these
        }

        ForEachLinkOf(blocks, Remove);
        if (Array.Find(blocks, static b => b.LinksInto > 0) is not CodeBlock linked)
        {
            return null;
        }

        PatchDiagnostic error = PatchDiagnostic.Error(DiagnosticCodes.BlockLinked, "sites are still linked to the block") with
        {
            Address = linked.Address,
            Found = $"{linked.LinksInto} links from other blocks",
            Help = "Call LivePatcher.UnlinkFrom before the blocks are retired.",
        };
        ForEachLinkOf(blocks, Add);
        return error;
    }

    private static void ForEachLinkOf(CodeBlock[] blocks, Action<LiveSite> action)
    {
        foreach (CodeBlock block in blocks)
        {
            for (int i = 0; i < block.SiteCount; i++)
            {
                if (block.Records[i].State == SiteState.Linked)
                {
                    action(block[i]);
                }
            }
        }
    }

    private void Change(LiveSite site, int by)
    {
        Count += by;
        if (site.Target is VirtualAddress target && ArenaDirectory.TryFindBlock(target, out CodeBlock? block))
        {
            block.CountLinks(by);
        }
    }
}
