using PvPatch.Plans;

namespace PvPatch.Tool.Plan;

/// <summary>Sites of a plan that share slot, action and reason.</summary>
/// <param name="First">The index of the first of them.</param>
/// <param name="Count">How many there are.</param>
internal readonly record struct PlanGroup(int First, int Count)
{
    /// <summary>All groups, by type number, then in order of address.</summary>
    public static IReadOnlyList<PlanGroup> Of(PatchPlan plan)
    {
        var groups = new Dictionary<(string Label, PatchAction Action, PatchReason Reason), PlanGroup>();
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            var key = (site.Label, site.Action, site.Reason);
            groups[key] = groups.TryGetValue(key, out PlanGroup known) ? known with { Count = known.Count + 1 } : new PlanGroup(i, 1);
        }

        PlanGroup[] sorted = [.. groups.Values];
        Array.Sort(sorted, (a, b) => (plan[a.First].Outcome.Type ?? int.MaxValue, a.First).CompareTo((plan[b.First].Outcome.Type ?? int.MaxValue, b.First)));
        return sorted;
    }
}
