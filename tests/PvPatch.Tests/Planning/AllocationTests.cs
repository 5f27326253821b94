using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>
/// A plan is as large as its sites and nothing is allocated for each of them beside it; applying allocates nothing that grows.
/// </summary>
public sealed class AllocationTests
{
    private const int Many = 20_000;
    private const int Few = 2_000;

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Planning_allocates_at_most_24_bytes_a_site(int bitness)
    {
        var planner = new PatchPlanner();
        long few = Planning(planner, Few, bitness);
        long many = Planning(planner, Many, bitness);
        double perSite = (double)(many - few) / (Many - Few);
        Assert.True(perSite <= 24, $"{perSite} bytes a site");
        Assert.True(perSite >= 15.5, $"{perSite} bytes a site cannot hold a plan: the measurement is broken");
    }

    [Fact]
    public void Applying_verifying_what_is_there_and_reverting_allocate_nothing_for_each_site()
    {
        long few = Applying(Few);
        long many = Applying(Many);
        Assert.True(Math.Abs(many - few) < 1024, $"{few} bytes for {Few} sites, {many} for {Many}");
    }

    [Fact]
    public void Making_a_site_table_allocates_little_more_than_the_table()
    {
        PatchSite[] sites = [.. new PlanCases(Many).Sites.Sites];
        long before = GC.GetAllocatedBytesForCurrentThread();
        SiteTable.Create(sites);
        long perSite = (GC.GetAllocatedBytesForCurrentThread() - before) / Many;
        Assert.True(perSite <= 32, $"{perSite} bytes a site");
    }

    private static long Planning(PatchPlanner planner, int count, int bitness)
    {
        var cases = new PlanCases(count, bitness);
        Backend backend = cases.All(Operation.Call(PlanCases.Target))
            .Derive("b", b => b.Nop("ops.s1").Inline("ops.s2", static a => a.cli()));
        planner.Plan(cases.Image, cases.Sites, backend); // what is made once is made
        long before = GC.GetAllocatedBytesForCurrentThread();
        planner.Plan(cases.Image, cases.Sites, backend);
        return GC.GetAllocatedBytesForCurrentThread() - before;
    }

    private static long Applying(int count)
    {
        var cases = new PlanCases(count);
        PatchPlan plan = cases.Plan(Operation.Call(PlanCases.Target));
        plan.Apply(cases.Image);
        plan.Revert(cases.Image);

        // The least of several: a collection for another test's sake counts what is left of this thread's piece of the heap as allocated.
        long least = long.MaxValue;
        for (int i = 0; i < 8; i++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            plan.Apply(cases.Image);
            plan.Apply(cases.Image);
            plan.Verify(cases.Image);
            plan.Revert(cases.Image);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        return least;
    }
}
