using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>The last value that is right and the first that is not.</summary>
public sealed class LimitTests
{
    private const ulong Start = 0x4000_0000_0000;

    /// <summary>
    /// rel32 goes from -2^31 to 2^31 - 1, counted from the end of the call. The first site is decoded, the second is known by its form.
    /// </summary>
    [Theory]
    [InlineData(0x7fff_ffffL, true)]
    [InlineData(0x8000_0000L, false)]
    [InlineData(-0x8000_0000L, true)]
    [InlineData(-0x8000_0001L, false)]
    public void Reach_ends_at_2_GiB_on_both_sides(long distance, bool inReach)
    {
        for (int judged = 0; judged < 2; judged++)
        {
            byte[] code = new byte[64];
            code.AsSpan().Fill(0xcc);
            for (int i = 0; i < 2; i++)
            {
                ((byte[])[0xff, 0x15, 0, 0, 0, 0]).CopyTo(code, i * 8);
            }

            var image = new CodeImage(Start, code);
            SiteTable sites = SiteTable.Create(
                new PatchSite(Start, 0, 6, RegisterSet.All), new PatchSite(Start + 8, 0, 6, RegisterSet.All));
            ulong target = unchecked(Start + (ulong)(judged * 8) + 5 + (ulong)distance);
            SiteDecision site = new PatchPlanner().Plan(image, sites, new PlanCases(1).All(Operation.Call(target)))[judged];
            Assert.Equal(inReach ? PatchAction.Call : PatchAction.LeaveAlone, site.Action);
            Assert.Equal(inReach ? PatchReason.None : PatchReason.OutOfReach, site.Reason);
            if (inReach)
            {
                Assert.Equal(distance, BitConverter.ToInt32(site.NewBytes[1..]));
            }
        }
    }

    /// <summary>
    /// The call is known by the form of the first site, which is a nop: nothing but the table's two ends says that it has to be looked at.
    /// </summary>
    [Theory]
    [InlineData(0x7fff_ffffL, 1, true)]
    [InlineData(0x8000_0000L, 1, false)]
    [InlineData(-0x8000_0000L, 2, true)]
    [InlineData(-0x8000_0001L, 2, false)]
    public void A_call_between_others_is_out_of_reach_by_itself(long distance, int called, bool inReach)
    {
        byte[] code = new byte[64];
        PatchSite[] sites = [
            .. Enumerable.Range(0, 3).Select(i => new PatchSite(Start + (ulong)(i * 8), i == called ? 1 : 0, 6, RegisterSet.All))];
        for (int i = 0; i < sites.Length; i++)
        {
            ((byte[])[0xff, 0x15, 0, 0, 0, 0]).CopyTo(code, i * 8);
        }

        ulong target = unchecked(Start + (ulong)(called * 8) + 5 + (ulong)distance);
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("nop").Slot("call")));
        var backend = Backend.Create("b", layout, b => b.Nop("t.nop").Call("t.call", target));
        PatchPlan plan = new PatchPlanner().Plan(new CodeImage(Start, code), SiteTable.Create(sites), backend);
        Assert.Equal(inReach ? PatchAction.Call : PatchAction.LeaveAlone, plan[called].Action);
        Assert.Equal(2, plan.Summary.Count(PatchAction.Nop));
        Assert.Equal(inReach ? "e8 " : "ff 15 ", HexBytes.Format(plan[called].NewBytes)[..(inReach ? 3 : 6)]);
    }

    /// <summary>
    /// push rax … call … ret, with rcx alone to save: 51, 48 8d 64 24 .. where the stack is aligned, e8, 59, c3. The room's last byte is a
    /// thunk's.
    /// </summary>
    [Fact]
    public void Room_for_thunks_is_used_to_its_last_byte_and_no_further()
    {
        int length = Assert.Single(PlanIn(48), static s => s.Action == PatchAction.Thunk).Length;
        SiteDecision thunk = Assert.Single(PlanIn(length), static s => s.Action == PatchAction.Thunk);
        Assert.Equal(0xc3, thunk.NewBytes[^1]); // ret
        Assert.Equal(PatchReason.ClobbersTooMuch, Assert.Single(PlanIn(length - 1)).Reason);
    }

    [Theory]
    [InlineData("c4 e2 61 90 0c 90")] // vpgatherdd xmm1,[rax+xmm2*4],xmm3
    [InlineData("62 f2 7d 09 90 0c 90")] // vpgatherdd xmm1{k1},[rax+xmm2*4]
    [InlineData("62 f2 7d 09 a0 0c 90")] // vpscatterdd [rax+xmm2*4]{k1},xmm1
    [InlineData("f3 a4")] // rep movsb
    [InlineData("0f 05")] // syscall
    public void What_can_be_interrupted_half_done_or_is_wound_back_is_not_padded(string bytes)
    {
        byte[] instruction = HexBytes.Parse(bytes);
        Assert.False(PrefixPadding.TryPad(instruction, new byte[instruction.Length]));
        Assert.False(PrefixPadding.TryPad(instruction, new byte[instruction.Length + 2]));
    }

    /// <summary>An entry's 16 bytes say all of a site of up to 16 bytes; one byte more is kept beside the entries.</summary>
    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void Sites_of_up_to_16_bytes_take_an_entry_and_nothing_else(int bitness)
    {
        int[] lengths = [.. Enumerable.Range(6, 15), .. Enumerable.Range(6, 15)]; // the first of each length is decoded, the second known
        var code = new List<byte>();
        var table = new List<PatchSite>();
        foreach (int length in lengths)
        {
            table.Add(new PatchSite(PlanCases.Start + (ulong)code.Count, table.Count % 3, length, RegisterSet.All));
            code.AddRange([0xff, 0x15, 0, 0, 0x50, 0, .. Enumerable.Repeat((byte)0x90, length - 6)]);
        }

        code.AddRange(new byte[32]);
        var cases = new PlanCases(1, bitness);
        var image = new CodeImage(bitness, new CodeSegment(".text", PlanCases.Start, code.ToArray()));
        Backend backend = cases.All(Operation.Call(PlanCases.Target)).Derive("b", static b => b.Nop("ops.s1").Call("ops.s2", 1UL << 40));
        PatchPlan plan = new PatchPlanner().Plan(image, SiteTable.Create([.. table]), backend);
        Assert.Equal(
            lengths.Select((l, i) => (l, i % 3 == 0 ? PatchAction.Call : i % 3 == 1 ? PatchAction.Nop : PatchAction.LeaveAlone)),
            Enumerable.Range(0, plan.Count).Select(i => (plan[i].Length, plan[i].Action)));
        Assert.Equal(lengths.Select(static l => l > SiteBytes.MaxLength), plan.Entries.Select(static e => e.IsOverflow));
    }

    /// <summary>
    /// More forms of new bytes than fit into 15 bits: each site has a target of its own, and one is out of reach, so each is looked at.
    /// </summary>
    [Fact]
    public void Forty_thousand_targets_each_get_their_own_call()
    {
        const int Count = 40_000;
        const int Out = Count - 7; // the slot whose target is out of reach
        const ulong Far = 0x7000_0000_0000;
        var cases = new PlanCases(2 * Count, slots: Count); // the second site of each slot is known by the first's form
        Backend backend = Backend.Create("many", cases.Layout, static b =>
        {
            for (int i = 0; i < Count; i++)
            {
                b.Call($"ops.s{i}", i == Out ? Far : PlanCases.Target + (ulong)(i * 16));
            }
        });
        PatchPlan plan = new PatchPlanner().Plan(cases.Image, cases.Sites, backend);
        Assert.Equal((2 * Count) - 2, plan.Summary.Count(PatchAction.Call));
        Assert.Equal([PatchReason.OutOfReach, PatchReason.OutOfReach], new[] { Out, Count + Out }.Select(i => plan[i].Reason));
        plan.Apply(cases.Image);
        for (int i = 0; i < 2 * Count; i++)
        {
            if (i % Count != Out)
            {
                ulong site = PlanCases.Start + (ulong)(i * 8);
                Assert.Equal(0xe8, cases.Code[i * 8]);
                Assert.Equal(
                    PlanCases.Target + (ulong)(i % Count * 16), site + 5 + (ulong)BitConverter.ToInt32(cases.Code, (i * 8) + 1));
            }
        }
    }

    private static PatchPlan PlanIn(int room)
    {
        var cases = new PlanCases(1, clobbers: RegisterSet.Rax);
        Operation call = Operation.Call(PlanCases.Target, destroys: RegisterSet.Rax | RegisterSet.Rcx);
        return cases.Plan(call, new PlanOptions { Thunks = new AddressRange(PlanCases.Start + 16, room) });
    }
}
