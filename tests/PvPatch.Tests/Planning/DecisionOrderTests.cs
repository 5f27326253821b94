using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Planning;

/// <summary>What comes next where the first thing tried does not do: by the rules, not by what happens to be possible.</summary>
public sealed class DecisionOrderTests
{
    private const ulong Target = 0x401000;

    private static readonly OpsLayout s_layout = OpsLayout.Create(
        static b => b.Table("t", static t => t.Slot("op").Slot("leave", SlotKind.Jump), CallConvention.SysV));
    private static readonly OpsLayout s_layout32 = OpsLayout.Create(
        static b => b.Table("t", static t => t.Slot("op"), CallConvention.I386RegParm));

    // xor ecx,ecx five times: ten bytes.
    private static readonly InlineBody s_ten = InlineBody.Create(static a =>
    {
        for (int i = 0; i < 5; i++)
        {
            a.xor(ecx, ecx);
        }
    });

    private static readonly InlineBody s_two = InlineBody.Create(static a => a.xor(ecx, ecx));

    [Fact]
    public void An_identity_that_destroys_too_much_is_called_where_its_function_destroys_less()
    {
        // mov rax,rdi destroys rax, which the site keeps; the function is known to destroy nothing.
        Operation operation = Operation.Identity64.WithTarget(Target, "f", RegisterSet.None);
        Decision decision = Decide(PatchRules.Default, operation, 8, RegisterSet.None);
        Assert.Equal((PatchAction.Call, Target), (decision.Action, decision.Target!.Value.Value));
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.ClobbersTooMuch),
            ActionOf(Decide(PatchRules.Default, Operation.Identity64, 8, RegisterSet.None)));
        Assert.Equal(PatchAction.Identity, Decide(PatchRules.Default, operation, 8, RegisterSet.Rax).Action);
    }

    [Fact]
    public void A_site_too_small_for_a_call_is_left_alone_for_the_reason_the_body_was_refused()
    {
        Operation operation = Operation.Inline(s_two).WithTarget(Target);
        Assert.Equal(
            (PatchAction.LeaveAlone, PatchReason.ClobbersTooMuch), ActionOf(Decide(PatchRules.Default, operation, 4, RegisterSet.Flags)));
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.TooSmall),
            ActionOf(Decide(PatchRules.Default, Operation.Call(Target), 4, RegisterSet.All)));
    }

    [Fact]
    public void A_body_too_long_is_called_only_where_the_backends_patch_function_goes_on_and_is_asked()
    {
        // native's paravirt_patch_insns leaves such a site; Xen's goes on with the default.
        Operation native = Operation.Inline(s_ten).WithTarget(Target);
        Operation xen = native.DefaultingWhereTooLong();
        Assert.True(LinuxRules.Linux2622.UsesBackendPatchFunction && LinuxRules.Linux2622.HasDefault);
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.TooSmall), ActionOf(Decide(LinuxRules.Linux2622, native, 8)));
        Assert.Equal(PatchAction.Call, Decide(LinuxRules.Linux2622, xen, 8).Action);
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.TooSmall),
            ActionOf(Decide(LinuxRules.Linux2622 with { UsesBackendPatchFunction = false }, xen, 8)));

        // Where there is no default, the body's own reason stays.
        Assert.False(LinuxRules.Linux2621.HasDefault);
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.TooSmall), ActionOf(Decide(LinuxRules.Linux2621, xen, 8)));
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.RulesDecline), ActionOf(Decide(LinuxRules.Linux2621, Operation.Call(Target), 8)));
    }

    [Fact]
    public void A_body_without_a_function_is_no_missing_operation_where_rules_use_no_bodies()
    {
        PatchRules never = LinuxRules.All.First(static r => r.Inline == InlineRule.Never);
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.RulesDecline), ActionOf(Decide(never, Operation.Inline(s_two), 8)));
        Assert.Equal(PatchAction.Call, Decide(never, Operation.Inline(s_two).WithTarget(Target), 8).Action);
    }

    [Fact]
    public void Slots_are_jumped_to_by_the_rules_list_where_there_is_one_and_by_the_layout_elsewhere()
    {
        PatchRules listed = PatchRules.Default with { JumpSlots = new HashSet<string> { s_layout[0].Name } };
        Assert.Equal([PatchAction.Jump, PatchAction.Call],
            s_layout.Slots.Select(s => Decide(listed, Operation.Call(Target), 8, RegisterSet.All, s).Action));
        Assert.Equal([PatchAction.Call, PatchAction.Jump],
            s_layout.Slots.Select(s => Decide(PatchRules.Default, Operation.Call(Target), 8, RegisterSet.All, s).Action));
        Assert.Equal(PatchAction.Call, Decide(listed with { JumpSlots = new HashSet<string>() }, Operation.Jump(Target), 8).Action);
    }

    [Theory]
    [InlineData(0xffff_ffff, 5, PatchAction.CallBug, false)]
    [InlineData(0xffff_ffff, 4, PatchAction.LeaveAlone, true)]
    [InlineData(0x1_0000_0000, 5, PatchAction.LeaveAlone, false)]
    public void A_BUG_function_is_called_from_the_shortest_site_and_at_the_last_address(
        ulong bug, int budget, PatchAction action, bool stops)
    {
        PatchRules rules = LinuxRules.All.First(static r => r.MissingCallsBug);
        Decision decision = new OpsDecider(new PlanOptions { Rules = rules, BugTarget = bug }, Templates(32), 32)
            .Decide(s_layout32[0], Operation.Missing, new PatchSite(0x1000, 0, budget, RegisterSet.All));
        Assert.Equal((action, stops), (decision.Action, decision.Failed is not null));
    }

    [Theory]
    [InlineData(64, "destroys rcx too")]
    [InlineData(32, "destroys ecx too")]
    public void A_refused_body_names_the_registers_of_its_own_code(int bitness, string detail)
    {
        OpSlot slot = (bitness == 64 ? s_layout : s_layout32)[0];
        Decision decision = new OpsDecider(new PlanOptions(), Templates(bitness), bitness)
            .Decide(slot, Operation.Inline(s_two), new PatchSite(0x1000, 0, 8, RegisterSet.Flags));
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.ClobbersTooMuch, detail), (decision.Action, decision.Reason, decision.Detail));
    }

    private static (PatchAction Action, PatchReason Reason) ActionOf(Decision decision) => (decision.Action, decision.Reason);

    private static TemplateStore Templates(int bitness) => new(bitness, NopStyle.Default(bitness));

    private static Decision Decide(PatchRules rules, Operation operation, int budget, RegisterSet? clobbers = null, OpSlot? slot = null) =>
        new OpsDecider(new PlanOptions { Rules = rules }, Templates(64), 64)
            .Decide(slot ?? s_layout[0], operation, new PatchSite(0x400000, 0, budget, clobbers ?? RegisterSet.All));
}
