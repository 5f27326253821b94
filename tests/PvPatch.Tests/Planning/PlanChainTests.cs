using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Planning;

public sealed class PlanChainTests
{
    private static readonly OpsLayout s_ops = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op")));

    [Fact]
    public void A_host_that_switches_for_ever_does_not_keep_every_plan()
    {
        byte[] code = [0xff, 0x15, 0, 0, 0, 0];
        byte[] original = [.. code];
        var image = new CodeImage(0x1000, code);
        var sites = SiteTable.Create(new PatchSite(0x1000, 0, 6, RegisterSet.All));
        var planner = new PatchPlanner();
        PatchPlan? plan = null;
        WeakReference first = null!;
        for (int i = 0; i < 20; i++)
        {
            plan = Switch(planner, image, sites, plan, i);
            first ??= new WeakReference(plan);
        }

        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        Assert.False(first.IsAlive);
        plan!.Revert(image);
        Assert.Equal(original, code);
    }

    [Fact]
    public void A_plan_for_code_of_another_bitness_is_refused()
    {
        byte[] code = [0xff, 0x15, 0, 0, 0, 0];
        var sites = SiteTable.Create(new PatchSite(0x1000, 0, 6, RegisterSet.All));
        PatchPlan plan = Switch(new PatchPlanner(), new CodeImage(0x1000, code), sites, null, 1);
        byte[] before = [.. code];

        Assert.False(plan.TryApply(new CodeImage(0x1000, code, 32), out ApplyResult refused));

        refused.AssertRefused(plan);
        PatchDiagnostic wrong = Assert.Single(refused.Diagnostics);
        Assert.Equal((DiagnosticCodes.WrongBitness, "32", "64"), (wrong.Code, wrong.Found, wrong.Expected));
        Assert.Equal(before, code);
    }

    private static PatchPlan Switch(PatchPlanner planner, CodeImage image, SiteTable sites, PatchPlan? previous, int number)
    {
        var backend = Backend.Create("b", s_ops, b => b.Call("t.op", 0x10000 + ((ulong)number * 16)));
        PatchPlan plan = planner.Plan(image, sites, backend, new PlanOptions { Previous = previous });
        plan.Apply(image);
        return plan;
    }
}
