using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Execution;

/// <summary>Every kind of operation a user-mode program can have, run at a patched site: its result, and what else it changed.</summary>
public sealed class UserModeTests
{
    private static readonly RegisterSet s_c = CallConvention.KernelSysV.DestroyedBy(64);
    private static readonly SiteHarness s_sysV = new(CallConvention.KernelSysV, s_c);
    private static readonly SiteHarness s_windows = new(
        CallConvention.WindowsX64, CallConvention.WindowsX64.DestroyedBy(64));

    [Fact]
    public void A_direct_call_does_what_the_indirect_one_did()
    {
        SiteRun before = s_sysV.RunUnpatched();
        SiteRun after = s_sysV.Run(Operation.Call(SiteHarness.Target), s_c, out SiteDecision site);
        Assert.Equal(PatchAction.Call, site.Action);
        Assert.True(before.WasCalled && after.WasCalled);
        Assert.Equal(SiteHarness.Result, after.After[0]);
        Assert.Equal(before.Changed, after.Changed);
        Assert.Equal(before.TargetStackPointer & 15, after.TargetStackPointer & 15);
    }

    [Fact]
    public void Nops_change_nothing()
    {
        SiteRun run = s_sysV.Run(Operation.Nop, RegisterSet.None, out SiteDecision site);
        Assert.Equal((PatchAction.Nop, RegisterSet.None, false), (site.Action, run.Changed, run.WasCalled));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Identity_gives_the_first_argument(bool wide)
    {
        foreach ((SiteHarness harness, int argument) in ((SiteHarness, int)[])[(s_sysV, 7), (s_windows, 1)])
        {
            SiteRun run = harness.Run(wide ? Operation.Identity64 : Operation.Identity32, RegisterSet.Rax, out SiteDecision site);
            Assert.Equal((PatchAction.Identity, RegisterSet.Rax, false), (site.Action, run.Changed, run.WasCalled));
            Assert.Equal(wide ? run.Before[argument] : (uint)run.Before[argument], run.After[0]);
        }
    }

    [Fact]
    public void Inline_bodies_run_and_change_what_they_are_said_to()
    {
        (InlineBody Body, RegisterSet Destroys, Func<ulong[], ulong?> Result)[] bodies =
        [
            (InlineBody.Create(static a => a.lea(rax, __[rsi + rdx])), RegisterSet.Rax, static r => r[6] + r[2]),
            (InlineBody.Create(static a => a.mov(eax, 7)), RegisterSet.Rax, static _ => 7),
            (InlineBody.Create(static a => a.xor(eax, eax)), RegisterSet.Rax | RegisterSet.Flags, static _ => 0),
            (InlineBody.Create(static a => { a.push(rsi); a.pop(rax); }), RegisterSet.Rax, static r => r[6]),
            (InlineBody.Create(static a => { a.pushfq(); a.pop(rax); }), RegisterSet.Rax, static _ => null),
            // not leaves the flags alone
            (InlineBody.Create(static a => { a.mov(rax, r8); a.not(rax); }), RegisterSet.Rax, static r => ~r[8]),
            (InlineBody.Create(static a => a.xchg(rcx, rdx)), RegisterSet.Rcx | RegisterSet.Rdx, static r => r[0]),
            (InlineBody.Create(static a => { a.mov(al, 1); a.neg(rax); }), RegisterSet.Rax | RegisterSet.Flags,
                static r => unchecked(0 - ((r[0] & ~0xffUL) | 1))),
        ];
        foreach ((InlineBody body, RegisterSet destroys, Func<ulong[], ulong?> result) in bodies)
        {
            SiteRun run = s_sysV.Run(Operation.Inline(body), destroys, out SiteDecision site);
            Assert.Equal(PatchAction.Inline, site.Action);
            Assert.True(destroys.Contains(run.Changed), $"{site}: changed {run.Changed}");
            if (result(run.Before) is ulong expected)
            {
                Assert.Equal(expected, run.After[0]);
            }

            // One register less, and the body must not be used.
            s_sysV.Run(Operation.Inline(body).WithTarget(SiteHarness.Target), RegisterSet.None, out site);
            Assert.Equal(PatchAction.ThunkCall, site.Action);
        }
    }

    [Fact]
    public void A_body_with_a_call_reaches_its_target_from_the_site()
    {
        InlineBody body = InlineBody.Create(static a => { a.call(SiteHarness.Target.Value); a.inc(rax); });
        SiteRun run = s_sysV.Run(Operation.Inline(body), s_c, out SiteDecision site);
        Assert.Equal(PatchAction.Inline, site.Action);
        Assert.True(run.WasCalled);
        Assert.Equal(SiteHarness.Result + 1, run.After[0]);
        Assert.True(s_c.Contains(run.Changed));
    }

    [Fact]
    public void A_body_with_a_branch_takes_both_ways()
    {
        foreach (bool taken in (bool[])[true, false])
        {
            InlineBody body = InlineBody.Create(a =>
            {
                Iced.Intel.Label end = a.CreateLabel();
                a.mov(al, (sbyte)(taken ? 1 : 0));
                a.test(al, al);
                a.jne(end);
                a.mov(cl, 5);
                a.Label(ref end);
                a.zero_bytes(); // a label needs an instruction behind it, and be it one without bytes
            });
            SiteRun run = s_sysV.Run(Operation.Inline(body), s_c, out SiteDecision site);
            Assert.Equal(PatchAction.Inline, site.Action);
            Assert.Equal(!taken, run.Changed.Contains(RegisterSet.Rcx));
        }
    }
}
