using PvPatch.Images;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Properties;

/// <summary>What holds of every plan and its application, whatever code, sites and backends.</summary>
public sealed class PlanProperties
{
    private const int Cases = 250;

    [Fact]
    public void Bytes_outside_sites_never_change() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        byte[][] before = built.Snapshot();
        PatchPlan plan = built.Plan(0);
        Assert.Equal(before, built.Snapshot()); // planning writes nothing
        plan.Apply(built.Image);
        for (int s = 0; s < before.Length; s++)
        {
            CodeSegment segment = built.Image.Segments[s];
            for (int i = 0; i < before[s].Length; i++)
            {
                VirtualAddress at = segment.Address + i;
                bool inSite = built.Sites.IndexContaining(at) >= 0
                    || (plan.IndexContaining(at) is int index and >= 0 && plan[index].Action == PatchAction.Thunk);
                Assert.True(inSite || segment.Bytes.Span[i] == before[s][i], $"byte at {at} changed");
            }
        }
    });

    [Fact]
    public void Every_site_decodes_to_whole_instructions_that_end_with_it() =>
        PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan plan = built.Plan(0);
        foreach (PatchSite site in built.Sites.Sites)
        {
            SiteDecision decision = plan[plan.IndexContaining(site.Address)];
            Assert.Equal((site.Address, site.Budget), (decision.Address, decision.Length));
            CapstoneReader.AssertWholeInstructions(decision.NewBytes, site.Address.Value, scenario.Bitness, decision.ToString());
        }
    });

    [Fact]
    public void Applying_twice_is_applying_once() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan plan = built.Plan(0);
        int differing = Enumerable.Range(0, plan.Count).Count(i => !plan[i].OldBytes.SequenceEqual(plan[i].NewBytes));
        plan.Apply(built.Image).AssertApplied(differing, plan.Count - differing);
        byte[][] once = built.Snapshot();
        plan.Apply(built.Image).AssertApplied(0, plan.Count);
        Assert.Equal(once, built.Snapshot());
    });

    [Fact]
    public void The_same_input_gives_the_same_bytes_and_the_same_listing() =>
        PropertyCheck.Holds(ScenarioGen.Scenarios, Cases / 2, static scenario =>
    {
        (BuiltScenario first, BuiltScenario second) = (new BuiltScenario(scenario), new BuiltScenario(scenario));
        Assert.Equal(Listing(first.Plan(1)), Listing(second.Plan(1)));
        first.Plan(1).Apply(first.Image);
        second.Plan(1).Apply(second.Image);
        Assert.Equal(first.Snapshot(), second.Snapshot());
    });

    [Fact]
    public void Planning_with_a_planner_that_has_planned_before_changes_nothing() =>
        PropertyCheck.Holds(ScenarioGen.Scenarios, Cases / 2, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        var planner = new PvPatch.Mechanisms.PatchPlanner();
        foreach (int backend in (int[])[2, 0, 1])
        {
            string fresh = Listing(built.Plan(backend));
            Assert.Equal(fresh, Listing(planner.Plan(built.Image, built.Sites, built.Backends[backend], built.Options())));
        }
    });

    [Fact]
    public void Calls_and_jumps_reach_their_targets() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan plan = built.Plan(0);
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            if (site.Action is not (PatchAction.Call or PatchAction.Jump or PatchAction.ThunkCall))
            {
                continue;
            }

            Assert.Equal(site.Action == PatchAction.Jump ? 0xe9 : 0xe8, site.NewBytes[0]);
            VirtualAddress reached = Branches.Target(site.NewBytes, site.Address, 0, scenario.Bitness);
            if (site.Action == PatchAction.ThunkCall)
            {
                SiteDecision thunk = plan[plan.IndexContaining(reached)];
                Assert.Equal((PatchAction.Thunk, reached), (thunk.Action, thunk.Address));
                reached = Branches.Target(
                    thunk.NewBytes, thunk.Address, Branches.CallOffset(thunk.NewBytes, thunk.Address, scenario.Bitness), scenario.Bitness);
            }

            Assert.Equal(site.Target, reached);
            Assert.Equal(built.Backends[0][site.Label].Target, reached);
        }
    });

    private static string Listing(PatchPlan plan) =>
        System.Text.Encoding.UTF8.GetString(PlanJson.ToUtf8(plan, indented: true)) + plan.Summary + string.Join("\n", plan.Diagnostics);
}
