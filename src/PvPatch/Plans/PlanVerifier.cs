using PvPatch.Images;

namespace PvPatch.Plans;

/// <summary>Says in which state an image is, compared with a plan. Reads only.</summary>
internal static class PlanVerifier
{
    public static VerifyResult Run(PatchPlan plan, CodeImage image)
    {
        int patched = 0;
        int original = 0;
        int outside = 0;
        var others = new List<UnexpectedSite>();
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            if (!image.TryGetBytes(site.Address, site.Length, out Span<byte> there))
            {
                outside++;
            }
            else if (there.SequenceEqual(site.NewBytes))
            {
                patched++;
            }
            else if (there.SequenceEqual(site.OldBytes))
            {
                original++;
            }
            else
            {
                others.Add(new UnexpectedSite(site, there.ToArray()));
            }
        }

        PlanLog.Verified(plan.Logger, plan.Backend, patched, original, others.Count + outside);
        return new VerifyResult(patched, original, outside, others);
    }
}
