using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Planning;

/// <summary>The ends of address spaces, segments and thunk rooms.</summary>
public sealed class EdgeTests
{
    [Theory]
    [InlineData(64, ulong.MaxValue)]
    [InlineData(32, uint.MaxValue)]
    public void A_site_may_end_with_the_address_space(int bitness, ulong last)
    {
        byte[] code = [0x90, 0x90, 0xff, 0x15, 0, 0, 0, 0, 0x66, 0x90];
        ulong start = last - 9;
        var image = new CodeImage(bitness, new CodeSegment("top", start, code));
        OpsLayout layout = OpsLayout.Create(b => b.Table("ops", t => t.Slot("a")));
        Backend backend = Backend.Create("b", layout, b => b.Call("ops.a", start - 0x1000, destroys: RegisterSet.Rax));
        PatchPlan plan = new PatchPlanner().Plan(image, SiteTable.Create(new PatchSite(start + 2, 0, 8, RegisterSet.All)), backend);
        Assert.Equal(PatchAction.Call, plan[0].Action);
        Assert.Equal("e8 f9 ef ff ff 0f 1f 00".Replace("0f 1f 00", bitness == 64 ? "0f 1f 00" : "8d 76 00", StringComparison.Ordinal),
            HexBytes.Format(plan[0].NewBytes));
        plan.Apply(image).AssertApplied(1, 0);
        Assert.Equal(0x90, code[1]);
        Assert.True(plan.Verify(image).IsPatched);
        plan.Revert(image);
        Assert.Equal<byte>([0x90, 0x90, 0xff, 0x15, 0, 0, 0, 0, 0x66, 0x90], code);
    }

    [Theory]
    [InlineData(OperationKind.Call)]
    [InlineData(OperationKind.Jump)]
    public void A_32_bit_site_does_not_reach_above_4_GiB(OperationKind kind)
    {
        const ulong Target = 0x1_0040_1000;
        var cases = new PlanCases(1, 32);
        SiteDecision site = cases.Plan(kind == OperationKind.Call ? Operation.Call(Target) : Operation.Jump(Target))[0];
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.OutOfReach), (site.Action, site.Reason));
    }

    [Fact]
    public void BUG_above_4_GiB_is_out_of_reach_of_32_bit_code()
    {
        var cases = new PlanCases(1, 32);
        SiteDecision site = cases.Plan(Operation.Missing, new PlanOptions { Rules = LinuxRules.Linux61, BugTarget = 0x1_0000_0000 })[0];
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.OutOfReach), (site.Action, site.Reason));
    }

    [Fact]
    public void Empty_segments_do_not_hide_others()
    {
        byte[] code = new byte[0x100];
        CodeSegment[] segments =
        [
            new("before", 0x1000, Array.Empty<byte>()), new("text", 0x1000, code), new("inside", 0x1080, Array.Empty<byte>()),
            new("behind", 0x1100, Array.Empty<byte>()),
        ];
        var image = new CodeImage(64, segments);
        for (ulong address = 0x1000; address < 0x1100; address++)
        {
            Assert.Equal("text", image.Find(address, 1)?.Name);
        }

        Assert.Null(image.Find(0x1100, 1));
        Assert.Null(image.Find(0xfff, 1));
    }

    [Fact]
    public void A_site_over_the_border_of_two_segments_is_outside()
    {
        var cases = new PlanCases(2);
        var image = new CodeImage(64, new CodeSegment("a", PlanCases.Start, cases.Code.AsMemory(0, 12)),
            new CodeSegment("b", PlanCases.Start + 12, cases.Code.AsMemory(12)));
        PatchDiagnostic found = Assert.Single(cases.Refused(Operation.Nop, image: image));
        Assert.Equal((DiagnosticCodes.SiteOutsideImage, 1), (found.Code, found.SiteIndex));
    }

    [Fact]
    public void Thunks_are_shared_and_their_room_is_filled_to_the_last_byte_and_no_further()
    {
        // Each thunk: 9 pushes with flags (rax is allowed), call, pops, ret; every other slot has a target of its own.
        for (int length = 0; length <= 128; length++)
        {
            var cases = new PlanCases(8, clobbers: RegisterSet.Rax | RegisterSet.Vector);
            var options = new PlanOptions { Thunks = new AddressRange(PlanCases.Start + 64, Math.Min(length, 64)) };
            Backend backend = cases.All(Operation.Nop).Derive(
                "b", b => b.Call("ops.s0", PlanCases.Target).Call("ops.s1", PlanCases.Target + 16).Call("ops.s2", PlanCases.Target));
            PatchPlan plan = new PatchPlanner().Plan(cases.Image, cases.Sites, backend, options);
            byte[] before = [.. cases.Code];
            plan.Apply(cases.Image);
            Assert.Equal(before[(64 + Math.Min(length, 64))..], cases.Code[(64 + Math.Min(length, 64))..]);
            Assert.True(plan.Summary.Count(PatchAction.Thunk) <= 2);
            Assert.Equal(6, plan.Summary.Count(PatchAction.ThunkCall) + plan.Summary.Count(PatchAction.LeaveAlone));
            plan.Revert(cases.Image);
            Assert.Equal(before, cases.Code);
        }

        var enough = new PlanCases(8, clobbers: RegisterSet.Rax | RegisterSet.Vector);
        PatchPlan shared = new PatchPlanner().Plan(
            enough.Image, enough.Sites, enough.All(Operation.Call(PlanCases.Target)),
            new PlanOptions { Thunks = new AddressRange(PlanCases.Start + 64, 64) });
        Assert.Equal((8, 1), (shared.Summary.Count(PatchAction.ThunkCall), shared.Summary.Count(PatchAction.Thunk)));
    }

    [Fact]
    public void A_plan_that_goes_back_and_forth_does_not_need_more_room_for_thunks()
    {
        var cases = new PlanCases(4, clobbers: RegisterSet.Rax | RegisterSet.Vector);
        byte[] before = [.. cases.Code];
        PatchPlan? plan = null;
        for (int i = 0; i < 20; i++)
        {
            var options = new PlanOptions { Thunks = i == 7 ? null : new AddressRange(PlanCases.Start + 32, 64), Previous = plan };
            plan = cases.Plan(i % 2 == 0 ? Operation.Call(PlanCases.Target) : Operation.Nop, options);
            Assert.Equal(i % 2 == 0 ? 4 : 0, plan.Summary.Count(PatchAction.ThunkCall));
            Assert.Equal(1, plan.Summary.Count(PatchAction.Thunk));
            plan.Apply(cases.Image);
        }

        plan!.Revert(cases.Image);
        Assert.Equal(before, cases.Code);
    }
}
