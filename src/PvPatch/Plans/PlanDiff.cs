namespace PvPatch.Plans;

/// <summary>Two plans compared site by site: two backends of one kernel, two eras' rules, or two builds.</summary>
public sealed class PlanDiff
{
    private PlanDiff(PatchPlan first, PatchPlan second, IReadOnlyList<PlanDifference> differences, int compared)
    {
        First = first;
        Second = second;
        Differences = differences;
        Common = compared;
    }

    /// <summary>The first plan.</summary>
    public PatchPlan First { get; }

    /// <summary>The second plan.</summary>
    public PatchPlan Second { get; }

    /// <summary>The sites that differ, in order of address.</summary>
    public IReadOnlyList<PlanDifference> Differences { get; }

    /// <summary>How many sites both plans have.</summary>
    public int Common { get; }

    /// <summary>Whether the plans are of code of the same bitness, with the same sites, and say the same of each.</summary>
    public bool AreEqual => Differences.Count == 0 && First.Bitness == Second.Bitness;

    /// <summary>Compares two plans.</summary>
    /// <param name="first">One plan.</param>
    /// <param name="second">The other.</param>
    /// <returns>Where they differ. Sites are the same where address and length are; remarks and names of targets are not compared.</returns>
    public static PlanDiff Compare(PatchPlan first, PatchPlan second)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        var differences = new List<PlanDifference>();
        int common = 0;
        foreach (int[] at in PlanSites.Walk([first, second]))
        {
            SiteDecision? a = at[0] < 0 ? null : first[at[0]];
            SiteDecision? b = at[1] < 0 ? null : second[at[1]];
            PlanDifferenceKinds kinds = b is null ? PlanDifferenceKinds.OnlyInFirst : a is null ? PlanDifferenceKinds.OnlyInSecond : Compare(a.Value, b.Value);
            common += a is not null && b is not null ? 1 : 0;
            if (kinds != PlanDifferenceKinds.None)
            {
                SiteDecision any = (a ?? b)!.Value;
                differences.Add(new PlanDifference(any.Address, any.Length, kinds, a, b));
            }
        }

        return new PlanDiff(first, second, differences, common);
    }

    /// <summary>How many sites differ in something.</summary>
    /// <param name="kind">One kind or several, of which any counts.</param>
    /// <returns>The number.</returns>
    public int Count(PlanDifferenceKinds kind) => Differences.Count(d => (d.Kinds & kind) != 0);

    private static PlanDifferenceKinds Compare(SiteDecision a, SiteDecision b) =>
        (a.OldBytes.SequenceEqual(b.OldBytes) ? 0 : PlanDifferenceKinds.OldBytes)
        | (a.NewBytes.SequenceEqual(b.NewBytes) ? 0 : PlanDifferenceKinds.NewBytes)
        | (a.Action == b.Action && a.Reason == b.Reason ? 0 : PlanDifferenceKinds.Action)
        | (a.Label == b.Label ? 0 : PlanDifferenceKinds.Label)
        | (a.Target == b.Target ? 0 : PlanDifferenceKinds.Target);
}
