namespace PvPatch.Live;

/// <summary>
/// Where an emitted site may come to lie. Kept by prefixes on the instruction before the site where that can take them (not a branch, no prefix of its own but
/// mandatory ones, five more bytes at most), else by nops; neither is part of the site.
/// </summary>
public enum SitePlacement
{
    /// <summary>
    /// Not across the end of a 64-byte line, and not with its first byte at the end of 8: can always be changed live, by three barriers at worst. Costs a third
    /// of a byte a site.
    /// </summary>
    WithinCacheLine,

    /// <summary>Inside an aligned 8 bytes: one store changes it. For budgets up to 8; costs about two bytes a site of six.</summary>
    InsideAligned8,

    /// <summary>Inside an aligned 16 bytes: one store changes it on processors with AVX. For budgets up to 16.</summary>
    InsideAligned16,

    /// <summary>Wherever it falls. One site in sixteen (one in eight without AVX) can then be changed only at quiescence.</summary>
    None,
}

/// <summary>How much padding a placement wants. Pure.</summary>
internal static class PlacementRules
{
    /// <summary>Bytes to put before a site.</summary>
    /// <param name="site">The site.</param>
    /// <param name="offset">Where it would begin, counted from a multiple of 64.</param>
    public static int PaddingFor(in EmittedSite site, long offset)
    {
        for (int padding = 0; padding < SiteClassifier.LineSize; padding++)
        {
            if (Holds(site, (ulong)(offset + padding)))
            {
                return padding;
            }
        }

        return 0; // longer than a line: there is no better place than this one
    }

    public static bool Holds(in EmittedSite site, VirtualAddress address) =>
        site.Start < 0 ? Holds(site.Placement, address, site.Kind.Budget) : (int)(address.Value % SiteClassifier.LineSize) == site.Start;

    public static bool Holds(SitePlacement placement, VirtualAddress address, int budget) => placement switch
    {
        SitePlacement.InsideAligned8 => SiteClassifier.Fits(address, budget, 8),
        SitePlacement.InsideAligned16 => SiteClassifier.Fits(address, budget, 16),
        SitePlacement.WithinCacheLine => SiteClassifier.Fits(address, budget, SiteClassifier.LineSize)
            && (SiteClassifier.Fits(address, budget, 8) || SiteClassifier.Fits(address, 2, 8)),
        _ => true,
    };
}
