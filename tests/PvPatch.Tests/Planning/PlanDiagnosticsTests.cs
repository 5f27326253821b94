using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>Every finding that keeps a plan from being made or done: its code, where, what was found, what was expected.</summary>
public sealed class PlanDiagnosticsTests
{
    private static readonly Operation s_call = Operation.Call(PlanCases.Target);

    [Fact]
    public void PV1005_a_site_outside_every_segment()
    {
        var cases = new PlanCases(2);
        SiteTable sites = SiteTable.Create(
            cases.Sites[0], new PatchSite(PlanCases.Start + 76, 0, 8, RegisterSet.All), new PatchSite(0x300000, 0, 8, RegisterSet.All));
        IReadOnlyList<PatchDiagnostic> found = cases.Refused(s_call, sites: sites);
        Assert.Equal([DiagnosticCodes.SiteOutsideImage, DiagnosticCodes.SiteOutsideImage], found.Select(d => d.Code));
        Assert.Equal([0, 2], found.Select(d => d.SiteIndex!.Value));
        Assert.Equal(new VirtualAddress(0x300000), found[0].Address);
        Assert.Equal("0x00300000+8", found[0].Found);
        Assert.Equal("64-bit, .text 0x00400000+0x50", found[0].Expected);
    }

    [Fact]
    public void PV1006_a_slot_the_layout_does_not_have()
    {
        var cases = new PlanCases(1);
        PatchDiagnostic found = Assert.Single(
            cases.Refused(s_call, sites: SiteTable.Create(new PatchSite(PlanCases.Start, 4, 8, RegisterSet.All))));
        AssertAt(found, DiagnosticCodes.SiteUnknownSlot, 0, PlanCases.Start);
        Assert.Equal(("slot 4", "0 to 3 (ops)"), (found.Found, found.Expected));
    }

    [Fact]
    public void PV1007_a_word_that_holds_data()
    {
        var cases = new PlanCases(1);
        OpsLayout layout = OpsLayout.Create(b => b.Table("", t => t.Slot("name", SlotKind.Data)));
        Backend backend = Backend.Create("b", layout, static _ => { });
        Assert.False(
            new PatchPlanner().TryPlan(cases.Image, cases.Sites, backend, null, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        AssertAt(diagnostics[0], DiagnosticCodes.SiteDataSlot, 0, PlanCases.Start);
        Assert.Contains("name", diagnostics[0].Message, StringComparison.Ordinal);
    }

    [Fact]
    public void PV2005_a_body_that_does_not_assemble_names_site_and_slot()
    {
        var cases = new PlanCases(6);
        Backend backend = cases.All(s_call).Derive("bad", b => b.Set("ops.s1", Operation.Inline(InlineBody.FromBytes([0x50]))));
        Assert.False(
            new PatchPlanner().TryPlan(cases.Image, cases.Sites, backend, null, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal([1, 5], diagnostics.Select(d => d.SiteIndex!.Value));
        AssertAt(diagnostics[0], DiagnosticCodes.BodyInvalid, 1, PlanCases.Start + 8);
        Assert.Equal(("ops.s1", "50"), (diagnostics[0].Source, diagnostics[0].Found));
        Assert.Contains("stack pointer", diagnostics[0].Message, StringComparison.Ordinal);
    }

    [Fact]
    public void PV3001_bytes_that_are_no_whole_instructions()
    {
        var cases = new PlanCases(3);
        cases.Code[8 + 6] = 0x0f; // the tail of the second site: half a two-byte opcode
        cases.Code[8 + 7] = 0x0f;
        PatchDiagnostic found = Assert.Single(cases.Refused(s_call));
        AssertAt(found, DiagnosticCodes.UnknownBytes, 1, PlanCases.Start + 8);
        Assert.Equal(HexBytes.Format(cases.Code.AsSpan(8, 8)), found.Found);
        Assert.NotNull(found.Expected);
        Assert.NotNull(found.Help);
    }

    [Fact]
    public void PV3001_is_given_where_the_image_is_patched_and_the_old_plan_is_not()
    {
        var cases = new PlanCases(2);
        PatchPlan plan = cases.Plan(s_call);
        plan.Apply(cases.Image);
        var rules = new PlanOptions { Rules = LinuxRules.Linux510 }; // where what is no indirect call is an error
        Assert.All(cases.Refused(s_call, rules), d => Assert.Equal(DiagnosticCodes.UnknownBytes, d.Code));
        cases.Plan(s_call, rules with { Previous = plan });
    }

    [Fact]
    public void PV3002_a_call_through_another_slot()
    {
        foreach (int bitness in (int[])[64, 32])
        {
            var cases = new PlanCases(3, bitness);
            SiteTable sites = SiteTable.Create(cases.Sites[0], new PatchSite(PlanCases.Start + 8, 3, 8, RegisterSet.All), cases.Sites[2]);
            var options = new PlanOptions { OpsTableAddress = PlanCases.Table };
            PatchDiagnostic found = Assert.Single(cases.Refused(s_call, options, sites));
            AssertAt(found, DiagnosticCodes.WrongSlotOperand, 1, PlanCases.Start + 8);
            Assert.Contains("(ops.s1)", found.Found, StringComparison.Ordinal);
            Assert.Contains(HexBytes.Format(cases.Code.AsSpan(8, 8)), found.Found, StringComparison.Ordinal);
            Assert.Equal(new VirtualAddress(PlanCases.Table + (ulong)(3 * bitness / 8)).ToString(), found.Expected);
            cases.Plan(s_call, options); // the table as it is
        }
    }

    [Fact]
    public void PV3004_a_site_the_kernel_would_stop_at()
    {
        var cases = new PlanCases(1);
        cases.Code[0] = 0xff;
        cases.Code[1] = 0x12; // call [rdx]
        PatchDiagnostic found = Assert.Single(cases.Refused(
            s_call, new PlanOptions { Rules = LinuxRules.Linux510 },
            SiteTable.Create(new PatchSite(PlanCases.Start, 0, 2, RegisterSet.All))));
        AssertAt(found, DiagnosticCodes.KernelWouldStop, 0, PlanCases.Start);
        Assert.Equal(("a site of 2 bytes", "a call has 5 bytes"), (found.Found, found.Expected));
    }

    [Theory]
    [InlineData(0x700000UL, 256)] // outside
    [InlineData(PlanCases.Start, 16)] // on a site
    [InlineData(PlanCases.Start + 20, 64)] // over a site's end
    [InlineData(PlanCases.Start + 30, 1000)] // over the image's end
    [InlineData(PlanCases.Start + 40, 1L << 32)] // its lower half is 0
    public void PV3006_no_good_room_for_thunks(ulong address, long length)
    {
        var cases = new PlanCases(3);
        PatchDiagnostic found = Assert.Single(cases.Refused(s_call, new PlanOptions { Thunks = new AddressRange(address, length) }));
        Assert.Equal((DiagnosticCodes.ThunkArea, new VirtualAddress(address)), (found.Code, found.Address));
        Assert.Equal($"{length} bytes", found.Found);
        Assert.NotNull(found.Expected);
    }

    [Theory]
    [InlineData(PlanCases.Start + 8, 8, true)] // from the end of one site to the start of the next
    [InlineData(PlanCases.Start + 7, 9, false)]
    [InlineData(PlanCases.Start + 8, 9, false)]
    [InlineData(PlanCases.Start + 24, 64, true)] // to the image's last byte
    [InlineData(PlanCases.Start + 24, 65, false)]
    [InlineData(PlanCases.Start + 4, 0, true)] // no room at all holds no site, wherever it is
    public void Room_for_thunks_may_touch_sites_and_not_overlap_them(ulong address, int length, bool good)
    {
        var cases = new PlanCases(3);
        SiteTable sites = SiteTable.Create(cases.Sites[0], cases.Sites[2]);
        Assert.Equal(good, new PatchPlanner().TryPlan(cases.Image, sites, cases.All(s_call),
            new PlanOptions { Thunks = new AddressRange(address, length) }, out _, out IReadOnlyList<PatchDiagnostic> found));
        Assert.Equal(good ? [] : [DiagnosticCodes.ThunkArea], found.Select(static d => d.Code));
    }

    [Fact]
    public void Room_of_a_negative_length_is_no_range() =>
        Assert.Throws<ArgumentOutOfRangeException>(static () => new AddressRange(PlanCases.Start, -1));

    [Fact]
    public void PV3007_a_previous_plan_of_another_bitness()
    {
        PatchPlan previous = new PlanCases(1, 32).Plan(s_call);
        PatchDiagnostic found = Assert.Single(new PlanCases(1, 64).Refused(s_call, new PlanOptions { Previous = previous }));
        Assert.Equal((DiagnosticCodes.WrongPreviousPlan, "32", "64"), (found.Code, found.Found, found.Expected));
    }

    [Fact]
    public void PV3008_rules_that_call_BUG_need_its_address()
    {
        var cases = new PlanCases(1);
        PatchDiagnostic found = Assert.Single(cases.Refused(Operation.Missing, new PlanOptions { Rules = LinuxRules.Linux61 }));
        AssertAt(found, DiagnosticCodes.RulesNeedAddress, 0, PlanCases.Start);
        Assert.NotNull(found.Help);
        PatchPlan plan = cases.Plan(Operation.Missing, new PlanOptions { Rules = LinuxRules.Linux61, BugTarget = PlanCases.Target });
        Assert.Equal(PatchAction.CallBug, plan[0].Action);
    }

    [Fact]
    public void PV4001_and_PV4002_when_applied_to_another_image()
    {
        var cases = new PlanCases(3);
        PatchPlan plan = cases.Plan(s_call);
        byte[] code = new byte[20];
        code.AsSpan().Fill(0x90);
        Assert.False(plan.TryApply(new CodeImage(PlanCases.Start, code), out ApplyResult refused));
        Assert.Equal(
            [DiagnosticCodes.UnexpectedBytes, DiagnosticCodes.UnexpectedBytes, DiagnosticCodes.PlanOutsideImage],
            refused.Diagnostics.Select(d => d.Code));
        AssertAt(refused.Diagnostics[1], DiagnosticCodes.UnexpectedBytes, 1, PlanCases.Start + 8);
        Assert.Equal("90 90 90 90 90 90 90 90", refused.Diagnostics[1].Found);
        Assert.All(code, b => Assert.Equal(0x90, b));
    }

    [Fact]
    public void Findings_are_capped_and_the_rest_is_counted()
    {
        var cases = new PlanCases(1000);
        IReadOnlyList<PatchDiagnostic> found = cases.Refused(s_call, image: new CodeImage(0x10000, new byte[16]));
        Assert.Equal(101, found.Count);
        Assert.Equal(DiagnosticSeverity.Info, found[^1].Severity);
        Assert.Contains("900", found[^1].Message, StringComparison.Ordinal);
    }

    private static void AssertAt(PatchDiagnostic found, string code, int site, ulong address)
    {
        Assert.Equal((code, DiagnosticSeverity.Error), (found.Code, found.Severity));
        Assert.Equal((site, new VirtualAddress(address)), (found.SiteIndex, found.Address));
    }
}
