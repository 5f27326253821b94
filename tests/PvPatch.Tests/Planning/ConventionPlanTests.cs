using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Planning;

/// <summary>What an image's plan makes of a host's own conventions and of targets that are told their caller.</summary>
public sealed class ConventionPlanTests
{
    [Fact]
    public void Without_a_stack_sites_get_bodies_that_do_without_one_too()
    {
        OpsLayout layout = Layout(
            CallConvention.Create("bare", [RegisterSet.Rdi], RegisterSet.Rax, RegisterSet.Flags, hasStack: false));
        byte[] code = [0xff, 0x15, 0, 0, 0, 0];
        var site = SiteTable.Create([new PatchSite(0x1000, 0, 6, RegisterSet.All)]);
        Backend moves = Use(layout, Operation.Inline(InlineBody.Create(static a => a.mov(eax, edi))));
        PatchPlan plan = new PatchPlanner().Plan(new CodeImage(0x1000, code), site, moves);
        Assert.Equal(PatchAction.Inline, plan[0].Action);
        Backend pushes = Use(layout, Operation.Inline(InlineBody.Create(static a =>
        {
            a.push(rdi);
            a.pop(rax);
        })));
        PatchDiagnostic error = Assert.Throws<PatchException>(
            () => new PatchPlanner().Plan(new CodeImage(0x1000, code), site, pushes)).Diagnostic;
        Assert.Equal(DiagnosticCodes.ConventionBroken, error.Code);
        Assert.Contains("uses the stack: push rdi at +0", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_target_is_told_its_caller_where_there_is_room_for_thunks()
    {
        byte[] code = new byte[128];
        ((ReadOnlySpan<byte>)[0xff, 0x15, 0, 0, 0, 0]).CopyTo(code);
        code[0x30] = 0xc3;
        OpsLayout layout = Layout(CallConvention.SysV);
        var site = SiteTable.Create([new PatchSite(0x1000, 0, 6, CallConvention.SysV.DestroyedBy(64))]);
        Backend backend = Use(layout, Operation.Call(0x1030).PassingCaller(1));
        PatchPlan plan = new PatchPlanner().Plan(new CodeImage(0x1000, code), site, backend);
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.NeedsThunk), (plan[0].Action, plan[0].Reason));
        plan = new PatchPlanner().Plan(new CodeImage(0x1000, code), site, backend, new PlanOptions { Thunks = new AddressRange(0x1010, 16) });
        Assert.Equal((PatchAction.ThunkCall, PatchAction.Thunk), (plan[0].Action, plan[1].Action));
        Assert.Equal("48 8b 34 24 e9 17 00 00 00", HexBytes.Format(plan[1].NewBytes)); // mov (%rsp),%rsi; jmp 0x1030
        plan = new PatchPlanner().Plan(new CodeImage(0x1000, code), site, backend, new PlanOptions { Thunks = new AddressRange(0x1010, 4) });
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.NeedsThunk), (plan[0].Action, plan[0].Reason));

        // A host's own convention: the image's code is looked at.
        OpsLayout own = Layout(CallConvention.Create("kept", [RegisterSet.R11], RegisterSet.R10, RegisterSet.R11));
        plan = new PatchPlanner().Plan(new CodeImage(0x1000, code), site, Use(own, Operation.Call(0x1030)));
        Assert.Equal(PatchAction.Call, plan[0].Action);
        code[0x30] = 0xf8; // clc
        code[0x31] = 0xc3;
        PatchException refused = Assert.Throws<PatchException>(
            () => new PatchPlanner().Plan(new CodeImage(0x1000, code), site, Use(own, Operation.Call(0x1030))));
        Assert.Contains("destroys flags: clc at", refused.Diagnostic.Message, StringComparison.Ordinal);
    }

    private static OpsLayout Layout(CallConvention convention) =>
        OpsLayout.Create(b => b.Table("t", static t => t.Slot("op"), convention));

    private static Backend Use(OpsLayout layout, Operation operation) => Backend.Create("b", layout, b => b.Set("t.op", operation));
}
