using System.Text;
using PvPatch.Analysis;
using PvPatch.Linux.Audit;
using PvPatch.Linux.Tests.Eras;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Linux.Text;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Audit;

public sealed class KernelAuditTests
{
    private const string Slot = "irq.save_fl"; // its convention keeps all but rax

    private readonly SyntheticKernel _kernel = SyntheticKernel.Complete();

    /// <summary>The site: mov [rdi], ecx and ret are behind it.</summary>
    private readonly ulong _site;

    public KernelAuditTests()
    {
        _site = _kernel.AddSite(Slot);
        _kernel.Put(_site + 6, 0x89, 0x0f, 0xc3);
    }

    [Fact]
    public void A_function_that_keeps_what_is_read_is_proved()
    {
        _kernel.Put(SyntheticKernel.FunctionOf(Slot), 0xb8, 1, 0, 0, 0, 0xc3); // mov eax, 1; ret
        AuditedSite site = SiteOf(Audit());
        Assert.Equal(PatchAction.Call, site.Decision.Action);
        Assert.Equal(AuditVerdict.Proved, site.Verdict);
        Assert.Null(site.Cause);
        Assert.Null(site.Use);
    }

    [Fact]
    public void A_register_destroyed_and_read_is_a_contradiction_with_the_way_to_the_read()
    {
        _kernel.Put(SyntheticKernel.FunctionOf(Slot), 0xb9, 1, 0, 0, 0, 0xc3); // mov ecx, 1; ret
        BackendAudit audit = Audit();
        AuditedSite site = SiteOf(audit);
        Assert.Equal((AuditVerdict.Contradiction, AuditCause.Read), (site.Verdict, site.Cause));
        Assert.Equal(RegisterSet.Rcx, site.Breaks);
        CodeRun run = Assert.Single(site.Use!.Path);
        Assert.Equal((_site + 6, _site + 6), (run.Start.Value, run.Last.Value));
        Assert.Equal(RegisterSet.Rcx, Assert.Single(audit.BrokenSlots).Breaks);
        Assert.False(audit.IsSound);
    }

    [Theory]
    [InlineData("0xffffa00000001000", PatchAction.LeaveAlone)] // out of reach: the call through the table stays
    [InlineData("0xffffffff90000000", PatchAction.Call)]
    public void A_function_outside_the_image_is_undecided_and_breaks_nothing(string address, PatchAction action)
    {
        BackendAudit audit = Audit($$"""{"{{Slot}}":"{{address}}"}""");
        AuditedSite site = SiteOf(audit);
        Assert.Equal(action, site.Decision.Action);
        Assert.Equal((AuditVerdict.Undecided, AuditCause.NotFollowed), (site.Verdict, site.Cause));
        Assert.Equal(RegisterSet.None, site.Breaks);
        Assert.Equal(DiagnosticCodes.CodeNotFollowed, site.Undecided!.Code);

        AuditedSlot slot = Assert.Single(audit.UndecidedSlots);
        Assert.Equal(Slot, slot.Slot.Name);
        Assert.Equal(RegisterSet.None, slot.Breaks);
        Assert.Empty(audit.BrokenSlots);
        Assert.Equal(0, audit.Broken);
        Assert.Equal(0, audit.Count(AuditVerdict.Contradiction));
        Assert.Single(audit.Diagnostics, slot.Effects.Undecided);
    }

    [Fact]
    public void A_function_that_moves_the_stack_pointer_breaks_the_convention_where_it_is_called_directly()
    {
        _kernel.Put(SyntheticKernel.FunctionOf(Slot), 0xc2, 8, 0); // ret 8
        Assert.Equal(RegisterSet.Rsp, SiteOf(Audit()).Breaks);
    }

    [Fact]
    public void A_function_that_moves_the_stack_pointer_breaks_the_convention_where_the_code_of_a_site_calls_it()
    {
        ulong target = SyntheticKernel.FunctionOf("irq.halt");
        _kernel.Put(target, 0xc2, 8, 0); // ret 8
        byte[] call = [0x90, 0xe8, .. BitConverter.GetBytes((int)(target - (_site + 6)))]; // nop; call, as it stands at the site
        _kernel.AddAlternative(_site, SyntheticKernel.XenPv, true, call);
        AuditedSite site = SiteOf(Audit());
        Assert.Equal(PatchAction.Inline, site.Decision.Action);
        Assert.Equal(RegisterSet.Rsp, site.Breaks);
    }

    [Fact]
    public void A_site_is_not_taken_for_a_function()
    {
        _kernel.AddAlternative(_site, SyntheticKernel.XenPv, true, 0x9c, 0x58); // pushf; pop rax
        _kernel.Put(_site + 6, 0x5b, 0x48, 0x89, 0xc8, 0xc3); // pop rbx; mov rax, rcx; ret: no function destroys rbx so
        KernelAudit audit = Create(_kernel.Open());
        Assert.True(audit.TryAudit([new BootMachine()], out _, out _));
        Assert.Empty(audit.Analyzer.Unconventional);
    }

    [Fact]
    public void All_machines_are_planned_first_and_one_that_cannot_be_is_told()
    {
        KernelAudit audit = Create(_kernel.Open());
        Assert.False(audit.TryAudit([new BootMachine(), new BootMachine { Backend = "nobody" }], out _,
            out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal(KernelDiagnosticCodes.BackendNotInImage, Assert.Single(diagnostics).Code);
    }

    [Fact]
    public void A_kernel_of_32_bits_is_refused()
    {
        Assert.False(KernelAudit.TryCreate(Eras2620Tests.Kernel.Open(), out KernelAudit? audit, out PatchDiagnostic? error));
        Assert.Null(audit);
        Assert.Equal(KernelDiagnosticCodes.AuditNotSupported, error.Code);
    }

    private static KernelAudit Create(KernelImage image)
    {
        Assert.True(KernelAudit.TryCreate(image, out KernelAudit? audit, out PatchDiagnostic? error), error?.ToString());
        return audit;
    }

    private BackendAudit Audit(string? slots = null)
    {
        SlotOverrides? overrides = slots is null ? null : SlotOverrides.Read(Encoding.UTF8.GetBytes(slots));
        Assert.True(Create(_kernel.Open()).TryAudit([new BootMachine { Overrides = overrides }],
            out IReadOnlyList<BackendAudit>? audits, out IReadOnlyList<PatchDiagnostic> diagnostics), string.Join("; ", diagnostics));
        BackendAudit audit = Assert.Single(audits);
        Assert.Equal(_kernel.Records.Count, audit.Sites.Count);
        return audit;
    }

    private AuditedSite SiteOf(BackendAudit audit) => Assert.Single(audit.Sites, s => s.Site.Address.Value == _site);
}
