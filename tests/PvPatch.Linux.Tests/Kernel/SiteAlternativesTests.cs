using System.Buffers.Binary;
using PvPatch.Linux.Tests.Support;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>
/// Alternatives at the addresses of sites, by the rules of 6.1: applied after the calls, in table order, each padded with one-byte
/// nops of which every run of two or more becomes long ones.
/// </summary>
public sealed class SiteAlternativesTests
{
    private const int XenPv = SyntheticKernel.XenPv;

    [Fact]
    public void An_alternative_for_a_present_feature_does_not_apply_to_an_absent_one()
    {
        // Without "not": XENPV is absent on a native boot, so the call stays, and its single nop too.
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("mmu.flush_tlb_user"), XenPv, false, 0xfa);
        SiteDecision decision = KernelPlanTests.Plan(kernel)[0];
        Assert.Equal("e8 7b f2 ff ff 90", HexBytes.Format(decision.NewBytes));
        Assert.Equal(PatchAction.Call, decision.Action);
        Assert.Null(decision.Outcome.Detail);
    }

    [Fact]
    public void An_alternative_that_does_not_apply_leaves_the_long_nop_of_an_empty_function()
    {
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("mmu.release_pte"), XenPv, false, 0xfa);
        Assert.Equal("66 0f 1f 44 00 00", HexBytes.Format(KernelPlanTests.Plan(kernel)[0].NewBytes));
    }

    [Fact]
    public void Of_two_alternatives_on_a_site_the_last_that_applies_wins()
    {
        var kernel = new SyntheticKernel();
        ulong first = kernel.AddSite("irq.irq_disable");
        ulong second = kernel.AddSite("irq.irq_enable");
        kernel.AddAlternative(first, XenPv, true, 0xfa).AddAlternative(first, SyntheticKernel.PvUnlock, true, 0xfb);
        kernel.AddAlternative(second, XenPv, true, 0xfa).AddAlternative(second, XenPv, false, 0xfb);
        PatchPlan plan = KernelPlanTests.Plan(kernel);
        Assert.Equal("fb 0f 1f 44 00 00", HexBytes.Format(plan[0].NewBytes));
        Assert.Equal("fa 0f 1f 44 00 00", HexBytes.Format(plan[1].NewBytes));
    }

    [Theory]
    [InlineData("90", "66 0f 1f 44 00 00")]
    [InlineData("", "66 0f 1f 44 00 00")]
    [InlineData("fa 90 fb", "fa 90 fb 0f 1f 00")]
    [InlineData("fa 90 90 fb", "fa 66 90 fb 66 90")]
    [InlineData("b8 90 90 90 90", "b8 90 90 90 90 90")]
    [InlineData("b8 90 90 90 90 90", "b8 90 90 90 90 90")]
    [InlineData("0f 1f 44 00 00 90", "0f 1f 44 00 00 90")]
    [InlineData("c6 07 00 90 90 06", "c6 07 00 66 90 06")]
    public void Only_runs_of_one_byte_nops_between_instructions_become_long_nops(string replacement, string expected)
    {
        // b8 takes four bytes of operand, so its 90s are no nops; 06 is no instruction in 64-bit code.
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable"), XenPv, true, Bytes.FromHex(replacement));
        Assert.Equal(expected, HexBytes.Format(KernelPlanTests.Plan(kernel)[0].NewBytes));
    }

    [Fact]
    public void A_replacement_of_nothing_says_nop()
    {
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable"), XenPv, true);
        SiteDecision decision = KernelPlanTests.Plan(kernel)[0];
        Assert.Equal(PatchAction.Nop, decision.Action);
        Assert.Equal("alternative of !XENPV", decision.Outcome.Detail);
    }

    [Fact]
    public void A_call_in_a_replacement_goes_where_it_went_before_it_was_moved()
    {
        // In the replacement: call FunctionOf(halt), from ReplacementAddress. At the site at Text+0x1000: 0x270 - 0x1005 = -0xd95.
        var kernel = new SyntheticKernel();
        ulong site = kernel.AddSite("irq.irq_disable");
        int displacement = (int)(SyntheticKernel.FunctionOf("irq.halt") - (kernel.NextReplacement + 5));
        kernel.AddAlternative(site, XenPv, true, [0xe8, .. BitConverter.GetBytes(displacement)]);
        SiteDecision decision = KernelPlanTests.Plan(kernel)[0];
        Assert.Equal("e8 6b f2 ff ff 90", HexBytes.Format(decision.NewBytes));
        Assert.Equal(PatchAction.Call, decision.Action);
        Assert.Equal(SyntheticKernel.FunctionOf("irq.halt"), decision.Target!.Value.Value);
    }

    [Fact]
    public void A_call_that_is_not_the_whole_replacement_is_not_moved()
    {
        // 6.1 adjusts a call only where it is the whole replacement of five bytes.
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable"), XenPv, true, Bytes.FromHex("fa e8 11 22 33 44"));
        Assert.Equal("fa e8 11 22 33 44", HexBytes.Format(KernelPlanTests.Plan(kernel)[0].NewBytes));
    }

    [Fact]
    public void A_short_jump_as_replacement_is_refused()
    {
        // Its target would be read out of the four bytes behind the opcode, which are not one number.
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable"), XenPv, true, Bytes.FromHex("eb 10 90 90 90"));
        AssertUnknown(kernel, "out of reach");
    }

    [Fact]
    public void A_jump_as_replacement_goes_where_it_went_from_its_own_place()
    {
        // jmp .+5 at the replacement: the target is the byte behind it, far away from the site, so the jump stays long.
        var kernel = new SyntheticKernel();
        ulong site = kernel.AddSite("irq.irq_disable");
        kernel.AddAlternative(site, XenPv, true, Bytes.FromHex("e9 00 00 00 00"));
        SiteDecision decision = KernelPlanTests.Plan(kernel)[0];
        Assert.Equal(PatchAction.Jump, decision.Action);
        Assert.Equal(0xe9, decision.NewBytes[0]);
        long target = (long)site + 5 + BinaryPrimitives.ReadInt32LittleEndian(decision.NewBytes[1..]);
        Assert.Equal((long)decision.Target!.Value.Value, target);
        Assert.Equal(0x90, decision.NewBytes[5]);
    }

    [Theory]
    [InlineData(SyntheticKernel.Text + 0x1002, "eb 00 0f 1f 00 90")]
    [InlineData(SyntheticKernel.Text + 0x1020, "eb 1e 0f 1f 00 90")]
    [InlineData(SyntheticKernel.Text + 0x1081, "eb 7f 0f 1f 00 90")]
    [InlineData(SyntheticKernel.Text + 0x1082, "e9 7d 00 00 00 90")]
    [InlineData(SyntheticKernel.Text + 0x0ff0, "e9 eb ff ff ff 90")]
    public void A_jump_as_replacement_is_made_short_where_it_goes_a_little_forward(ulong target, string expected)
    {
        // From the site at Text+0x1000 the short form counts from two bytes on, the long one from five. Backward jumps stay long.
        var kernel = new SyntheticKernel();
        ulong site = kernel.AddSite("irq.irq_disable");
        int displacement = (int)(target - (kernel.NextReplacement + 5));
        kernel.AddAlternative(site, XenPv, true, [0xe9, .. BitConverter.GetBytes(displacement)]);
        SiteDecision decision = KernelPlanTests.Plan(kernel)[0];
        Assert.Equal(expected, HexBytes.Format(decision.NewBytes));
        Assert.Equal((PatchAction.Jump, target), (decision.Action, decision.Target!.Value.Value));
    }

    [Theory]
    [InlineData("e8 ff ff ff 7f")]
    [InlineData("e9 ff ff ff 7f")]
    public void A_replacement_that_goes_out_of_the_reach_of_its_site_is_refused(string replacement)
    {
        // 2 GiB above the replacement, which lies above the site.
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable"), XenPv, true, Bytes.FromHex(replacement));
        AssertUnknown(kernel, "out of reach");
    }

    [Theory]
    [InlineData(0x75)]
    [InlineData(0x111)]
    public void An_unknown_feature_at_a_site_is_refused(int feature)
    {
        var kernel = new SyntheticKernel();
        kernel.AddAlternative(kernel.AddSite("irq.irq_disable"), feature, false, 0xfa);
        PatchDiagnostic error = AssertUnknown(kernel, "condition");
        Assert.Equal($"feature {feature / 32}*32+{feature % 32}", error.Found);
    }

    [Theory]
    [InlineData(0, 5)]
    [InlineData(0, 7)]
    [InlineData(2, 4)]
    [InlineData(5, 8)]
    [InlineData(-2, 8)]
    [InlineData(-2, 3)]
    [InlineData(-4, 24)]
    public void An_alternative_that_covers_a_part_of_a_site_or_more_is_refused(int from, int length)
    {
        var kernel = new SyntheticKernel();
        kernel.AddSite("irq.halt");
        ulong site = kernel.AddSite("irq.irq_disable");
        kernel.AddAlternative(site + (ulong)(long)from, length, XenPv, true, 0xfa);
        AssertUnknown(kernel, "overlaps");
    }

    [Fact]
    public void Alternatives_beside_sites_are_ignored()
    {
        // Unknown features, jumps, and one that ends where a site begins and one that begins where it ends.
        var kernel = new SyntheticKernel();
        ulong site = kernel.AddSite("irq.irq_disable");
        kernel.AddAlternative(site - 8, 8, 0x75, false, 0xe9, 0, 0, 0, 0);
        kernel.AddAlternative(site + 6, 5, 0x6b, true, 0x0f, 0x01, 0xca);
        kernel.AddAlternative(site + 0x100, 5, 0x6b, true, 0x0f, 0x01, 0xca);
        PatchPlan plan = KernelPlanTests.Plan(kernel);
        Assert.Single(plan);
        Assert.Equal(PatchAction.Call, plan[0].Action);
    }

    private static PatchDiagnostic AssertUnknown(SyntheticKernel kernel, string message)
    {
        PatchDiagnostic error = KernelErrors.Plan(kernel);
        Assert.Equal(KernelDiagnosticCodes.AlternativeUnknown, error.Code);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        Assert.NotNull(error.Address);
        return error;
    }
}
