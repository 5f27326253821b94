namespace PvPatch.Live;

// Sites with a target of their own: block chaining, inline caches.
public sealed partial class LivePatcher
{
    /// <summary>Links a site, or throws. See <see cref="Link(IReadOnlyList{SiteLink}, SwitchOptions?)"/>.</summary>
    /// <param name="site">The site.</param>
    /// <param name="target">Run address of the code it shall lead to.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Link(LiveSite site, VirtualAddress target, SwitchOptions? options = null) => Link([new SiteLink(site, target)], options);

    /// <summary>
    /// Gives each of some sites a target of its own, or throws: a direct call, or a direct jump where the slot is a jump slot. For chaining blocks and for inline caches,
    /// where thousands of sites of one operation each lead elsewhere and the slot holds what finds the target.
    /// </summary>
    /// <remarks>
    /// A linked site stays linked when slots or all sites are switched (<see cref="SiteChange.KeptLink"/>), until it is unlinked, reverted or named in a switch of
    /// some sites, or <see cref="SwitchOptions.OverridesLinks"/> is set. Slots are not touched. Executors forwarded at a guard run the slot's function. Targets out of reach are
    /// led to through a jump of the arena, kept as long as that; a target that destroys more than the site allows through a thunk. A site that can only be
    /// changed at quiescence is refused live, for its slot does something else.
    /// </remarks>
    /// <param name="links">Sites and targets; a site without a target is unlinked. Where a site is named twice, the later one counts.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted; the diagnostic is the result's first.</exception>
    public SwitchResult Link(IReadOnlyList<SiteLink> links, SwitchOptions? options = null) => OrThrow(TryLink(links, options));

    /// <summary>As <see cref="Link(IReadOnlyList{SiteLink}, SwitchOptions?)"/>, with the reason in the result where nothing was done.</summary>
    /// <param name="links">Sites and targets.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done, or why nothing was: PV8031 where a site can't lead to its target, PV8029 where that is no code, and all that a switch may give.</returns>
    public SwitchResult TryLink(IReadOnlyList<SiteLink> links, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(links);
        return RunLinks(new BatchRequest { Target = "links", Options = options ?? new(), Links = links });
    }

    /// <summary>Lets some sites do again what their slots are switched to, or throws. Where nothing was switched to yet, they get the bytes they were emitted with.</summary>
    /// <param name="sites">The sites, linked or not.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult Unlink(IReadOnlyList<LiveSite> sites, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(sites);
        return OrThrow(RunLinks(new BatchRequest { Target = "unlinked", Options = options ?? new(), Links = [.. sites.Select(static s => new SiteLink(s, null))] }));
    }

    /// <summary>
    /// Unlinks every site of this patcher whose target lies in some blocks, or throws: to be called before they are retired, so that no site leads into them any
    /// more. Looks at all linked sites where there is one, so give it all blocks at once. Other patchers' sites and addresses kept elsewhere are the host's to see to.
    /// </summary>
    /// <param name="targets">The blocks that links lead into, not retired yet. Their own sites may lead wherever they do.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public SwitchResult UnlinkFrom(IReadOnlyList<CodeBlock> targets, SwitchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(targets);
        return OrThrow(RunLinks(new BatchRequest { Target = "unlinked", Options = options ?? new(), UnlinkedFrom = targets }));
    }

    private SwitchResult RunLinks(BatchRequest request) => _runner.Run(null, request with
    {
        PerSlot = _runner.Bound,
        Bound = _runner.Bound,
        LinkBodies = _linkBodies,
    });
}
