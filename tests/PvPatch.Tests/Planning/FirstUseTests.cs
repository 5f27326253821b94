using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Planning;

/// <summary>What a host that owns its bytes does first: layout, backend, sites, plan, apply, revert.</summary>
public sealed class FirstUseTests
{
    private const ulong Start = 0x400000;

    [Fact]
    public void A_plan_is_looked_at_applied_and_taken_back()
    {
        var ops = OpsLayout.Create(b => b.Table("mem", t => t.Slot("load32").Slot("store32").Slot("trace")));
        var fast = Backend.Create("fast", ops, b => b
            .Inline("mem.load32", a => a.mov(eax, __dword_ptr[rbx + rdi]))
            .Nop("mem.trace")
            .Call("mem.store32", 0x401000));
        byte[] code = new byte[64];
        for (int i = 0; i < 4; i++)
        {
            // call [rip+0]; xchg ax,ax
            ((byte[])[0xff, 0x15, 0, 0, 0, 0, 0x66, 0x90]).CopyTo(code, i * 8);
        }

        byte[] before = [.. code];
        var image = new CodeImage(Start, code);
        RegisterSet allButRbx = RegisterSet.All.Except(RegisterSet.Rbx);
        SiteTable sites = SiteTable.Create(
            new PatchSite(Start, ops["mem.load32"].Index, 8, allButRbx),
            new PatchSite(Start + 8, ops["mem.store32"].Index, 6, allButRbx),
            new PatchSite(Start + 16, ops["mem.trace"].Index, 8, allButRbx),
            new PatchSite(Start + 24, ops["mem.store32"].Index, 8, RegisterSet.Rax));

        PatchPlan plan = new PatchPlanner().Plan(image, sites, fast);
        Assert.Equal(before, code);
        Assert.Equal("1 inlined, 1 direct call, 1 nop, 1 left alone (ClobbersTooMuch)", plan.Summary.ToString());

        plan.Apply(image).AssertApplied(3, 1);
        Assert.Equal("8b 04 3b 0f 1f 44 00 00", HexBytes.Format(code.AsSpan(0, 8))); // mov eax,[rbx+rdi]; nop
        Assert.Equal("e8 f3 0f 00 00 90", HexBytes.Format(code.AsSpan(8, 6))); // call 0x401000; nop
        Assert.Equal("0f 1f 84 00 00 00 00 00", HexBytes.Format(code.AsSpan(16, 8)));
        plan.Apply(image).AssertApplied(0, 4);
        Assert.True(plan.Verify(image).IsPatched);

        plan.Revert(image);
        Assert.Equal(before, code);
    }

    [Fact]
    public void A_decision_says_where_what_and_why()
    {
        var cases = new PlanCases(1, clobbers: RegisterSet.Rax | RegisterSet.Flags);
        SiteDecision site = cases.Plan(Operation.Call(PlanCases.Target, "helper"))[0];
        Assert.Equal(("ops.s0", PatchAction.LeaveAlone, PatchReason.ClobbersTooMuch), (site.Label, site.Action, site.Reason));
        Assert.Equal((".text", new VirtualAddress(PlanCases.Start), 8), (site.Section, site.Address, site.Length));
        Assert.Equal("destroys rcx,rdx,rsi,rdi,r8,r9,r10,r11,vector too", site.Outcome.Detail);
        Assert.Equal("0x00400000 ops.s0 LeaveAlone (ClobbersTooMuch): ff 15 fa ff 0f 00 66 90 -> ff 15 fa ff 0f 00 66 90", site.ToString());
    }

    [Fact]
    public void A_missing_operation_is_a_warning_with_the_first_site()
    {
        var cases = new PlanCases(8);
        PatchPlan plan = new PatchPlanner()
            .Plan(cases.Image, cases.Sites, cases.All(Operation.Nop).Derive("some", b => b.Missing("ops.s2")));
        PatchDiagnostic warning = Assert.Single(plan.Diagnostics);
        Assert.Equal((DiagnosticCodes.MissingOperation, DiagnosticSeverity.Warning), (warning.Code, warning.Severity));
        Assert.Equal((2, new VirtualAddress(PlanCases.Start + 16)), (warning.SiteIndex, warning.Address));
        Assert.Equal(2, plan.Summary.Count(PatchAction.Trap));
    }
}
