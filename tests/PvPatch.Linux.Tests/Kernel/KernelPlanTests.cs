using PvPatch.Linux.Tests.Support;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>What a native boot of a kernel of 5.13 to 6.7 leaves at its sites; expected bytes written out, or made by GNU as.</summary>
public sealed class KernelPlanTests
{
    private const int XenPv = SyntheticKernel.XenPv;
    private const int PvUnlock = SyntheticKernel.PvUnlock;
    private const int VcpuPreempt = SyntheticKernel.VcpuPreempt;

    // The pointers of a native machine's short forms, all by ALT_NOT; the table is "6-byte site" of 6.1.
    [Theory]
    [InlineData("irq.irq_disable", XenPv, "fa", "fa 0f 1f 44 00 00")]
    [InlineData("irq.irq_enable", XenPv, "fb", "fb 0f 1f 44 00 00")]
    [InlineData("irq.save_fl", XenPv, "9c 58", "9c 58 0f 1f 40 00")]
    [InlineData("mmu.pte_val", XenPv, "48 89 f8", "48 89 f8 0f 1f 00")]
    [InlineData("mmu.read_cr2", XenPv, "0f 20 d0", "0f 20 d0 0f 1f 00")]
    [InlineData("mmu.read_cr3", XenPv, "0f 20 d8", "0f 20 d8 0f 1f 00")]
    [InlineData("mmu.write_cr3", XenPv, "0f 22 df", "0f 22 df 0f 1f 00")]
    [InlineData("cpu.wbinvd", XenPv, "0f 09", "0f 09 0f 1f 40 00")]
    [InlineData("lock.queued_spin_unlock", PvUnlock, "c6 07 00", "c6 07 00 0f 1f 00")]
    [InlineData("lock.vcpu_is_preempted", VcpuPreempt, "48 31 c0", "48 31 c0 0f 1f 00")]
    public void A_short_form_is_laid_over_the_call_where_its_feature_is_absent(
        string slot, int feature, string replacement, string expected)
    {
        var kernel = new SyntheticKernel();
        ulong site = kernel.AddSite(slot);
        kernel.AddAlternative(site, feature, true, Bytes.FromHex(replacement));

        SiteDecision decision = Plan(kernel)[0];
        Assert.Equal(expected, HexBytes.Format(decision.NewBytes));
        Assert.Equal(PatchAction.Inline, decision.Action);
        Assert.Equal(slot, decision.Label);
        Assert.Equal(site, decision.Address.Value);
        Assert.Equal("ff 15", HexBytes.Format(decision.OldBytes[..2]));
    }

    [Fact]
    public void An_empty_function_leaves_one_long_nop()
    {
        var kernel = new SyntheticKernel();
        kernel.AddSite("mmu.alloc_pte");
        kernel.AddSite("mmu.lazy_mode.enter");
        PatchPlan plan = Plan(kernel);
        Assert.All([plan[0], plan[1]], d => Assert.Equal("66 0f 1f 44 00 00", HexBytes.Format(d.NewBytes)));
        Assert.Equal(PatchAction.Nop, plan[1].Action);
    }

    [Theory]
    [InlineData("c3")]
    [InlineData("f3 0f 1e fa c3")]
    [InlineData("f3 0f 1e fa e9 00 01 00 00")]
    [InlineData("e9 00 01 00 00")]
    public void The_empty_function_may_begin_with_endbr_and_return_through_a_thunk(string code)
    {
        var kernel = new SyntheticKernel();
        kernel.Put(SyntheticKernel.EmptyFunction, Bytes.FromHex(code));
        kernel.AddSite("mmu.release_pmd");
        Assert.Equal(PatchAction.Nop, Plan(kernel)[0].Action);
    }

    [Fact]
    public void The_empty_function_may_be_the_last_bytes_of_its_section()
    {
        const ulong Last = SyntheticKernel.InitText + 0x1fff;
        var kernel = new SyntheticKernel();
        kernel.Put(Last, 0xc3);
        foreach (string slot in SyntheticOps.Empty)
        {
            kernel.Pointers[SyntheticOps.IndexOf(slot)] = Last;
        }

        kernel.AddSite("mmu.release_pmd");
        Assert.Equal(PatchAction.Nop, Plan(kernel)[0].Action);
    }

    [Fact]
    public void Any_other_function_is_called()
    {
        // From Text+0x1000 to the function of slot 8 at Text+0x200+8*16: 0x280 - 0x1005 = -0xd85.
        var kernel = new SyntheticKernel();
        kernel.AddSite("mmu.flush_tlb_user");
        SiteDecision decision = Plan(kernel)[0];
        Assert.Equal("e8 7b f2 ff ff 90", HexBytes.Format(decision.NewBytes));
        Assert.Equal(PatchAction.Call, decision.Action);
        Assert.Equal(SyntheticKernel.FunctionOf("mmu.flush_tlb_user"), decision.Target!.Value.Value);
    }

    [Fact]
    public void A_call_from_init_code_goes_back_to_the_kernel_text()
    {
        // From InitText to the function of slot 7 at Text+0x270: 0x81000270 - 0x83000005.
        var kernel = new SyntheticKernel();
        kernel.AddSite("irq.halt", init: true);
        Assert.Equal("e8 6b 02 00 fe 90", HexBytes.Format(Plan(kernel)[0].NewBytes));
        Assert.Equal(".init.text", Plan(kernel)[0].Section);
    }

    [Fact]
    public void An_identity_without_alternative_is_called_like_any_function()
    {
        // From 6.1 on no pointer is compared with the identity functions: mov rax, rdi; ret
        var kernel = new SyntheticKernel();
        kernel.Put(SyntheticKernel.FunctionOf("mmu.pte_val"), 0x48, 0x89, 0xf8, 0xc3);
        kernel.AddSite("mmu.pte_val");
        Assert.Equal(PatchAction.Call, Plan(kernel)[0].Action);
    }

    [Fact]
    public void A_slot_without_function_needs_the_address_of_the_bug_function()
    {
        var kernel = new SyntheticKernel();
        kernel.Pointers[SyntheticOps.IndexOf("mmu.set_fixmap")] = 0;
        kernel.AddSite("irq.halt");
        ulong site = kernel.AddSite("mmu.set_fixmap");
        PatchDiagnostic error = KernelErrors.Plan(kernel);
        Assert.Equal(DiagnosticCodes.RulesNeedAddress, error.Code);
        Assert.Equal(site, error.Address!.Value.Value);
    }

    [Fact]
    public void A_slot_without_function_and_without_sites_does_no_harm()
    {
        var kernel = new SyntheticKernel();
        kernel.Pointers[SyntheticOps.IndexOf("mmu.set_fixmap")] = 0;
        kernel.AddSite("irq.halt");
        Assert.Single(Plan(kernel));
    }

    [Fact]
    public void A_plan_is_applied_and_taken_back_without_touching_anything_else()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        KernelImage image = kernel.Open();
        byte[] before = image.Elf.File.ToArray();
        PatchPlan plan = Plan(image);
        Assert.Equal(SyntheticOps.Names.Count + 4, plan.Count);
        Assert.Equal(before, image.Elf.File.ToArray());

        byte[] expected = [.. before];
        for (int i = 0; i < plan.Count; i++)
        {
            Assert.True(image.Elf.TryGetFileOffset(plan[i].Address, plan[i].Length, out long offset));
            plan[i].NewBytes.CopyTo(expected.AsSpan((int)offset));
        }

        plan.Apply(image.Code);
        Assert.Equal(expected, image.Elf.File.ToArray());
        Assert.Equal(0, plan.Apply(image.Code).Written);
        plan.Revert(image.Code);
        Assert.Equal(before, image.Elf.File.ToArray());
    }

    [Fact]
    public void Only_the_backend_in_the_image_can_be_planned()
    {
        var kernel = new SyntheticKernel();
        kernel.AddSite("irq.halt");
        Assert.False(new KernelPlanner().TryPlan(kernel.Open(), "xen", out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal(KernelDiagnosticCodes.BackendNotInImage, Assert.Single(diagnostics).Code);
        Assert.Equal("native", diagnostics[0].Expected);
    }

    internal static PatchPlan Plan(SyntheticKernel kernel) => Plan(kernel.Open());

    internal static PatchPlan Plan(KernelImage image)
    {
        Assert.True(new KernelPlanner().TryPlan(image, "native", out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics),
            string.Join("; ", diagnostics));
        return plan;
    }
}
