using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Execution;

/// <summary>
/// Save/restore thunks are run: what the site does not let go is the same afterwards, and the target's stack is as it wants it.
/// </summary>
public sealed class ThunkExecutionTests
{
    private static readonly RegisterSet s_watched = RegisterSet.AllGeneral.Except(RegisterSet.Rsp) | RegisterSet.Flags;

    public static TheoryData<CallConvention> Conventions => new(CallConvention.SysV, CallConvention.KernelSysV, CallConvention.WindowsX64);

    [Theory]
    [MemberData(nameof(Conventions))]
    public void Registers_the_site_keeps_survive_a_target_that_destroys_all_it_may(CallConvention convention)
    {
        RegisterSet destroys = convention.DestroyedBy(64);
        var harness = new SiteHarness(convention, destroys);
        var random = TestSeed.NewRandom();
        int thunks = 0;
        for (int i = 0; i < 60; i++)
        {
            // Vector state cannot be saved, so every site lets it go; the first sites keep one register each, then two, then any.
            RegisterSet kept = i < 16 ? RegisterSet.General(i) : i < 32
                ? RegisterSet.General(i - 16) | RegisterSet.Flags : RegisterSet.FromBits((uint)random.Next(1 << 17));
            RegisterSet allowed = RegisterSet.All.Except(kept);
            SiteRun run = harness.Run(Operation.Call(SiteHarness.Target), allowed, out SiteDecision site);

            bool needsThunk = !allowed.Contains(destroys);
            Assert.Equal(needsThunk ? PatchAction.ThunkCall : PatchAction.Call, site.Action);
            thunks += needsThunk ? 1 : 0;
            Assert.True(run.WasCalled);
            Assert.True(allowed.Contains(run.Changed), $"{site}: changed {run.Changed}, allowed {allowed}");
            Assert.Equal(8UL, run.TargetStackPointer & 15); // as behind any call from an aligned stack
            Assert.Equal(kept.Contains(RegisterSet.Rax) ? run.Before[0] : SiteHarness.Result, run.After[0]);
        }

        Assert.True(thunks > 40, $"only {thunks} thunks ran");
    }

    [Theory]
    [MemberData(nameof(Conventions))]
    public void A_target_that_destroys_little_needs_no_thunk(CallConvention convention)
    {
        RegisterSet destroys = RegisterSet.Rax | RegisterSet.R10;
        var harness = new SiteHarness(convention, destroys);
        SiteRun run = harness.Run(Operation.Call(SiteHarness.Target, destroys: destroys), destroys, out SiteDecision site);
        Assert.Equal((PatchAction.Call, destroys), (site.Action, run.Changed));
        run = harness.Run(Operation.Call(SiteHarness.Target, destroys: destroys), RegisterSet.Rax, out site);
        Assert.Equal((PatchAction.ThunkCall, RegisterSet.Rax), (site.Action, run.Changed));
    }

    [Fact]
    public void The_harness_sees_everything_the_target_destroys()
    {
        RegisterSet destroys = CallConvention.KernelSysV.DestroyedBy(64);
        SiteRun run = new SiteHarness(CallConvention.KernelSysV, destroys).RunUnpatched();
        Assert.True(run.WasCalled);
        Assert.Equal(destroys & s_watched, run.Changed);
    }

    [Theory]
    [InlineData("rcx")]
    [InlineData("r11")]
    [InlineData("flags")]
    [InlineData("rdi,rsi")]
    public void A_site_table_that_lies_about_clobbers_is_caught(string lie)
    {
        // The code needs these registers; its site says they may be destroyed; the engine believes it, and the run shows the damage.
        Assert.True(RegisterSet.TryParse(lie, out RegisterSet needed));
        RegisterSet destroys = CallConvention.KernelSysV.DestroyedBy(64);
        var harness = new SiteHarness(CallConvention.KernelSysV, destroys);
        SiteRun honest = harness.Run(Operation.Call(SiteHarness.Target), RegisterSet.All.Except(needed), out SiteDecision site);
        Assert.Equal((PatchAction.ThunkCall, RegisterSet.None), (site.Action, honest.Changed & needed));
        SiteRun lying = harness.Run(Operation.Call(SiteHarness.Target), RegisterSet.All, out site);
        Assert.Equal((PatchAction.Call, needed), (site.Action, lying.Changed & needed));
    }

    [Fact]
    public void A_target_said_to_destroy_less_than_it_does_is_caught()
    {
        var harness = new SiteHarness(CallConvention.KernelSysV, RegisterSet.Rax | RegisterSet.Rdx);
        SiteRun run = harness.Run(Operation.Call(SiteHarness.Target, destroys: RegisterSet.Rax), RegisterSet.Rax, out SiteDecision site);
        Assert.Equal(PatchAction.Call, site.Action);
        Assert.True(run.Changed.Contains(RegisterSet.Rdx));
    }
}
