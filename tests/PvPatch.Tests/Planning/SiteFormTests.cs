using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>What is taken for a site's call, and what only looks like one. Bytes as GNU as writes them.</summary>
public sealed class SiteFormTests
{
    [Theory]
    [InlineData(64, "ff 1d 00 00 00 00")] // lcall *0(%rip): a far call
    [InlineData(64, "48 ff 1d 00 00 00 00")] // rex.W lcall
    [InlineData(64, "ff 2d 00 00 00 00")] // ljmp
    [InlineData(64, "64 ff 15 00 00 00 00")] // call *%fs:0(%rip)
    [InlineData(64, "65 ff 15 00 00 00 00")] // call *%gs:0(%rip)
    [InlineData(64, "65 ff 14 25 00 00 50 00")] // call *%gs:0x500000
    [InlineData(64, "66 ff 15 00 00 00 00")] // 16 bits on AMD
    [InlineData(64, "67 ff 15 00 00 00 00")] // call *0(%eip)
    [InlineData(64, "64 ff 25 00 00 00 00")] // jmp
    [InlineData(32, "ff 1d 00 00 50 00")] // lcall
    [InlineData(32, "64 ff 15 00 00 50 00")] // call *%fs:
    [InlineData(32, "65 ff 15 00 00 50 00")] // call *%gs:
    [InlineData(32, "66 ff 15 00 00 50 00")] // callw
    [InlineData(32, "67 ff 16 00 50")] // call *0x5000 by 16-bit addressing
    [InlineData(64, "ff d0 90 90 90")] // call *%rax: through no word
    [InlineData(64, "e8 00 00 00 00")] // a direct call
    public void Is_not_the_sites_call(int bitness, string bytes)
    {
        PatchPlan plan = Plan(bitness, bytes);
        Assert.Equal((PatchAction.LeaveAlone, PatchReason.NotACall), (plan[0].Action, plan[0].Reason));
        Assert.Equal(plan[0].OldBytes, plan[0].NewBytes);
    }

    [Theory]
    [InlineData(64, "ff 15 00 00 00 00")]
    [InlineData(64, "2e ff 15 00 00 00 00")] // cs means nothing in 64-bit code
    [InlineData(64, "3e ff 15 00 00 00 00")] // ds, notrack
    [InlineData(64, "f2 ff 15 00 00 00 00")] // bnd
    [InlineData(64, "48 ff 15 00 00 00 00")] // rex.W
    [InlineData(64, "41 ff 57 08 90")] // call *8(%r15)
    [InlineData(64, "50 ff 15 00 00 00 00 58")] // push %rax; call; pop %rax
    [InlineData(32, "ff 15 00 00 50 00")]
    [InlineData(32, "2e ff 15 00 00 50 00")]
    public void Is_the_sites_call(int bitness, string bytes) => Assert.Equal(PatchAction.Call, Plan(bitness, bytes)[0].Action);

    /// <summary>Twice the same site: the second is recognised by the form of the first.</summary>
    [Fact]
    public void What_is_refused_is_refused_at_the_next_site_too()
    {
        Assert.True(HexBytes.TryParse("64 ff 15 00 00 00 00", out byte[]? one));
        byte[] code = [.. one!, .. one!, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc];
        var image = new CodeImage(0x400000, code);
        SiteTable sites = SiteTable.Create(new PatchSite(0x400000, 0, 7, RegisterSet.All), new PatchSite(0x400007, 0, 7, RegisterSet.All));
        PatchPlan plan = new PatchPlanner().Plan(image, sites, new PlanCases(1).All(Operation.Call(PlanCases.Target)));
        Assert.Equal(PatchReason.NotACall, plan[0].Reason);
        Assert.Equal(PatchReason.NotACall, plan[1].Reason);
    }

    private static PatchPlan Plan(int bitness, string bytes)
    {
        Assert.True(HexBytes.TryParse(bytes, out byte[]? code));
        var image = new CodeImage(bitness, new CodeSegment(".text", 0x400000, code));
        SiteTable sites = SiteTable.Create(new PatchSite(0x400000, 0, code.Length, RegisterSet.All));
        return new PatchPlanner().Plan(image, sites, new PlanCases(1, bitness).All(Operation.Call(PlanCases.Target)));
    }
}
