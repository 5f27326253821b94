using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>
/// A plan of many sites asks once whether all can reach all: one that can't is found wherever it lies, at the first and at the last site.
/// </summary>
public sealed class ReachTests
{
    private const int Count = 40;
    private const ulong Kernel = 0xffff_ffff_8100_0000;
    private const ulong User = 0x7f00_0000; // the kernel's address, negated: their sum is nothing

    [Theory]
    [InlineData(Kernel, Kernel + 0x1000, User)]
    [InlineData(User, User + 0x1000, Kernel)]
    [InlineData(0x10_0000_0000, 0x10_0000_1000, 0x20_0000_0000)]
    [InlineData(0x20_0000_0000, 0x20_0000_1000, 0x10_0000_0000)]
    [InlineData(0x10_0000_0000, 0x10_0000_1000, 0)]
    public void Sites_are_patched_where_their_target_is_in_reach_and_left_alone_where_not(ulong start, ulong near, ulong far)
    {
        (CodeImage image, byte[] code, SiteTable sites, OpsLayout layout) = Make(start);
        byte[] before = [.. code];
        PatchPlan plan = new PatchPlanner()
            .Plan(image, sites, Backend.Create("two", layout, b => b.Call("ops.s0", near).Call("ops.s1", far)));
        plan.Apply(image);
        for (int i = 0; i < Count; i++)
        {
            Assert.Equal(i % 2 == 0 ? PatchReason.None : PatchReason.OutOfReach, plan[i].Reason);
            Assert.Equal(i % 2 == 0 ? Call(start, i, near) : before[(i * 8)..(i * 8 + 8)], code[(i * 8)..(i * 8 + 8)]);
        }
    }

    // rel32 counts from the end of the call: 2 GiB less one ahead, 2 GiB back.
    [Theory]
    [InlineData(0, 0x7fff_ffffL, Count)]
    [InlineData(0, 0x8000_0000L, Count - 1)]
    [InlineData(Count - 1, 0x7fff_ffffL, 1)]
    [InlineData(Count - 1, -0x8000_0000L, Count)]
    [InlineData(Count - 1, -0x8000_0001L, Count - 1)]
    [InlineData(0, -0x8000_0000L, 1)]
    public void The_last_byte_in_reach_is_in_reach(int site, long distance, int reach)
    {
        const ulong Start = 0x10_0000_0000;
        (CodeImage image, byte[] code, SiteTable sites, OpsLayout layout) = Make(Start);
        ulong target = unchecked(Start + (ulong)(site * 8) + 5 + (ulong)distance);
        PatchPlan plan = new PatchPlanner()
            .Plan(image, sites, Backend.Create("one", layout, b => b.Call("ops.s0", target).Call("ops.s1", target)));
        Assert.Equal(reach, Enumerable.Range(0, Count).Count(i => plan[i].Reason == PatchReason.None));
        plan.Apply(image);
        Assert.Equal(reach, Enumerable.Range(0, Count).Count(i => code.AsSpan(i * 8, 8).SequenceEqual(Call(Start, i, target))));
    }

    private static (CodeImage Image, byte[] Code, SiteTable Sites, OpsLayout Layout) Make(ulong start)
    {
        byte[] code = new byte[Count * 8 + 64];
        code.AsSpan().Fill(0xcc);
        var sites = new PatchSite[Count];
        for (int i = 0; i < Count; i++)
        {
            // call [rip+disp32] of the slot's word, 0x2000 behind the code's start; xchg ax,ax
            byte[] call = [0xff, 0x15, .. BitConverter.GetBytes(0x2000 + (i % 2 * 8) - (i * 8 + 6)), 0x66, 0x90];
            call.CopyTo(code, i * 8);
            sites[i] = new PatchSite(start + (ulong)(i * 8), i % 2, 8, RegisterSet.All);
        }

        OpsLayout layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("s0").Slot("s1"), CallConvention.SysV));
        return (new CodeImage(64, new CodeSegment(".text", start, code)), code, SiteTable.Create(sites), layout);
    }

    /// <summary>e8 rel32 and the 3-byte nop of P6.</summary>
    private static byte[] Call(ulong start, int site, ulong target) =>
        [0xe8, .. BitConverter.GetBytes(unchecked((int)(target - (start + (ulong)(site * 8) + 5)))), 0x0f, 0x1f, 0x00];
}
