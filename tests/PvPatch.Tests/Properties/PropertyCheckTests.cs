using PvPatch.Plans;

namespace PvPatch.Tests.Properties;

/// <summary>The properties can fail, say how, and see enough.</summary>
public sealed class PropertyCheckTests
{
    [Fact]
    public void A_property_that_does_not_hold_fails_with_its_seed_and_its_smallest_case()
    {
        Exception error = Assert.ThrowsAny<Exception>(() => PropertyCheck.Holds(
            ScenarioGen.Scenarios, 200, static scenario => Assert.DoesNotContain(scenario.Sites, s => s.Budget > 20)));
        Assert.Contains("seed", error.Message, StringComparison.Ordinal);
        // the case itself, where it was small enough
        string shrunk = error.Message[Math.Max(0, error.Message.IndexOf("Shrunk", StringComparison.Ordinal))..];
        Assert.Equal(1, shrunk.Split('\n').First(l => l.Contains("sites ", StringComparison.Ordinal)).Count(c => c == '('));
    }

    [Fact]
    public void Random_cases_see_every_action_and_every_reason()
    {
        var actions = new Dictionary<PatchAction, int>();
        var reasons = new Dictionary<PatchReason, int>();
        int longSites = 0;
        PropertyCheck.Holds(ScenarioGen.Scenarios, 600, scenario =>
        {
            PatchPlan plan = new BuiltScenario(scenario).Plan(0);
            for (int i = 0; i < plan.Count; i++)
            {
                actions[plan[i].Action] = actions.GetValueOrDefault(plan[i].Action) + 1;
                reasons[plan[i].Reason] = reasons.GetValueOrDefault(plan[i].Reason) + 1;
                longSites += plan[i].Length > 16 ? 1 : 0;
            }
        });
        PatchAction[] possible = [.. Enum.GetValues<PatchAction>().Except([PatchAction.CallBug, PatchAction.Record, PatchAction.Slot, PatchAction.Constant])];
        PatchReason[] possibleReasons = [.. Enum.GetValues<PatchReason>()
            .Except([PatchReason.BackendDeclines, PatchReason.RulesDecline, PatchReason.ChangesWhileBooting, PatchReason.NeedsQuiescence])];
        Assert.All(
            possible, action => Assert.True(actions.GetValueOrDefault(action) > 20, $"{action}: {actions.GetValueOrDefault(action)}"));
        Assert.All(possibleReasons,
            reason => Assert.True(reasons.GetValueOrDefault(reason) > 20, $"{reason}: {reasons.GetValueOrDefault(reason)}"));
        Assert.True(longSites > 100, $"only {longSites} sites longer than a vector");
    }
}
