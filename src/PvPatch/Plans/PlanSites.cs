namespace PvPatch.Plans;

/// <summary>Walks several plans side by side: each site that any of them has, in order of address, with what each says of it.</summary>
internal static class PlanSites
{
    /// <summary>The sites, each as the indices of it in the plans (-1 where a plan lacks it). The array is used again for the next.</summary>
    public static IEnumerable<int[]> Walk(IReadOnlyList<PatchPlan> plans)
    {
        int[] next = new int[plans.Count];
        int[] here = new int[plans.Count];
        while (true)
        {
            (ulong Address, int Length) lowest = (ulong.MaxValue, int.MaxValue);
            for (int i = 0; i < next.Length; i++)
            {
                if (next[i] < plans[i].Count)
                {
                    (ulong Address, int Length) key = Key(plans[i], next[i]);
                    lowest = key.CompareTo(lowest) < 0 ? key : lowest;
                }
            }

            if (lowest.Length == int.MaxValue)
            {
                yield break;
            }

            for (int i = 0; i < next.Length; i++)
            {
                bool has = next[i] < plans[i].Count && Key(plans[i], next[i]) == lowest;
                here[i] = has ? next[i]++ : -1;
            }

            yield return here;
        }
    }

    private static (ulong Address, int Length) Key(PatchPlan plan, int index) => (plan[index].Address.Value, plan[index].Length);
}
