using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>
/// Plans that say of an image what is not so: they would be applied or reverted, since the image holds the bytes they name.
/// </summary>
public sealed class PlanCheckTests
{
    // call through the table's first word; xchg ax,ax
    private static readonly byte[] s_call = [0xff, 0x15, 0xfa, 0xff, 0x0f, 0x00, 0x66, 0x90];
    private readonly PlanCases _cases = new(4);

    [Fact]
    public void A_plan_of_the_image_belongs_to_it_before_and_after_it_is_applied()
    {
        PatchPlan plan = PlanJson.Read(PlanJson.ToUtf8(_cases.Plan(Operation.Call(PlanCases.Target))));
        plan.CheckAgainst(_cases.Image, _cases.Sites);
        plan.CheckAgainst(_cases.Image, _cases.Sites, new PlanCheckOptions { SlotAddresses = Words() });
        plan.Apply(_cases.Image);
        plan.CheckAgainst(_cases.Image, _cases.Sites, new PlanCheckOptions { SlotAddresses = Words() });
        plan.Revert(_cases.Image);
    }

    [Fact]
    public void A_site_in_no_table_is_refused()
    {
        // Behind the sites: int3, which the plan says was a call.
        PatchPlan plan = Forged(PlanCases.Start + 40, s_call, _cases.Code.AsSpan(40, 8));
        AssertRefused(plan, DiagnosticCodes.PlanSiteUnknown, PlanCases.Start + 40);
        plan.Revert(_cases.Image); // what the check is for
        Assert.Equal(s_call, _cases.Code.AsSpan(40, 8).ToArray());
    }

    [Theory]
    [InlineData(PlanCases.Start, 7)]
    [InlineData(PlanCases.Start, 9)]
    [InlineData(PlanCases.Start + 1, 7)]
    [InlineData(PlanCases.Start + 25, 8)]
    public void A_site_of_another_place_or_length_is_refused_even_where_more_may_be_written(ulong address, int length)
    {
        byte[] there = _cases.Code.AsSpan((int)(address - PlanCases.Start), length).ToArray();
        PatchPlan plan = Forged(address, there, Nops(length));
        AssertRefused(plan, DiagnosticCodes.PlanSiteUnknown, address);
        AssertRefused(
            plan, DiagnosticCodes.PlanSiteUnknown, address, new PlanCheckOptions { AlsoWritten = [new AddressRange(PlanCases.Start, 96)] });
    }

    [Theory]
    [InlineData("90 90 90 90 90 90 90 90")]
    [InlineData("e8 00 00 00 00 0f 1f 00")] // a direct call
    [InlineData("65 ff 15 00 00 00 00 90")] // through gs
    [InlineData("ff 15 fa ff 0f 00 66 0f")] // half an instruction
    public void Old_bytes_that_can_not_stand_at_a_site_are_refused(string old)
    {
        Assert.True(HexBytes.TryParse(old, out byte[]? bytes));
        Nops(8).CopyTo(_cases.Code, 0); // as if the site were patched
        AssertRefused(Forged(PlanCases.Start, bytes, Nops(8)), DiagnosticCodes.PlanOldBytes, PlanCases.Start);
    }

    [Fact]
    public void Old_bytes_that_call_through_another_slot_are_refused_where_the_words_are_known()
    {
        Nops(8).CopyTo(_cases.Code, 8);
        PatchPlan plan = Forged(PlanCases.Start + 8, s_call, Nops(8)); // from there the displacement names the second word
        plan.CheckAgainst(_cases.Image, _cases.Sites, new PlanCheckOptions { SlotAddresses = Words() });
        byte[] other = [.. s_call];
        other[2] += 8;
        plan = Forged(PlanCases.Start + 8, other, Nops(8));
        plan.CheckAgainst(_cases.Image, _cases.Sites);
        AssertRefused(plan, DiagnosticCodes.PlanOldBytes, PlanCases.Start + 8, new PlanCheckOptions { SlotAddresses = Words() });
    }

    [Theory]
    [InlineData("ff 53 08 0f 1f 44 00 00", false)] // call [rbx+8]: where it goes nobody can tell
    [InlineData("ff 15 fa ff 0f 00 66 90", true)] // call [rip+0xffffa]; xchg ax,ax
    [InlineData("50 ff 15 f9 ff 0f 00 58", true)] // push rax; call; pop rax
    [InlineData("50 ff 15 f9 ff 0f 00 59", false)] // push rax; call; pop rcx
    [InlineData("ff 15 fa ff 0f 00 ff d0", false)] // call; call rax
    [InlineData("ff 15 fa ff 0f 00 31 c0", false)] // call; xor eax,eax
    [InlineData("0f 01 f8 90 90 90 90 90", true)] // swapgs, which is named
    [InlineData("0f 01 f8 0f 01 f8 90 90", false)] // swapgs twice
    [InlineData("90 90 90 90 90 90 90 90", false)]
    public void A_whole_plan_has_originals_only_also_where_they_stand_there(string old, bool isOriginal)
    {
        Assert.True(HexBytes.TryParse(old, out byte[]? bytes));
        bytes.CopyTo(_cases.Code, 0); // as if the plan had been reverted
        PatchPlan plan = Whole(bytes);
        plan.CheckAgainst(_cases.Image, _cases.Sites, new PlanCheckOptions { SlotAddresses = Words() });
        PlanCheckOptions whole = WholeOptions();
        Assert.Equal(isOriginal, plan.TryCheckAgainst(_cases.Image, _cases.Sites, whole, out IReadOnlyList<PatchDiagnostic> found));
        Assert.Equal(isOriginal ? [] : [DiagnosticCodes.PlanOldBytes], found.Select(static d => d.Code));
    }

    [Theory]
    [InlineData(64, "ff 14 25 00 10 00 81 90", 0xffffffff81001000, true)] // call [disp32]: extended by sign
    [InlineData(64, "ff 14 25 00 10 00 81 90", 0x81001000, false)]
    [InlineData(64, "67 ff 14 25 00 10 00 81", 0xffffffff81001000, false)] // the processor reads at 0x81001000
    [InlineData(64, "67 ff 14 25 00 10 00 01", 0x01001000, false)]
    [InlineData(64, "67 ff 15 f9 ff 0f 00 90", PlanCases.Table, false)] // call [eip+0xffff9]
    [InlineData(64, "66 ff 15 f9 ff 0f 00 90", PlanCases.Table, false)] // AMD reads two bytes
    [InlineData(64, "64 ff 14 25 00 10 00 81", 0xffffffff81001000, false)] // fs
    [InlineData(64, "2e ff 15 f9 ff 0f 00 90", PlanCases.Table, true)] // cs
    [InlineData(32, "ff 15 00 10 00 81 66 90", 0x81001000, true)]
    [InlineData(32, "66 ff 15 00 10 00 81 90", 0x81001000, false)] // two bytes
    [InlineData(32, "67 ff 16 00 10 90 90 90", 0x1000, false)] // call [disp16]
    [InlineData(32, "65 ff 15 00 10 00 81 90", 0x81001000, false)] // gs
    [InlineData(32, "2e ff 15 00 10 00 81 90", 0x81001000, true)]
    public void An_original_reads_a_whole_word_at_the_address_that_it_names(int bitness, string old, ulong word, bool isOriginal)
    {
        Assert.True(HexBytes.TryParse(old, out byte[]? bytes));
        var cases = new PlanCases(1, bitness);
        Nops(8).CopyTo(cases.Code, 0); // as if the site were patched
        var builder = new PlanBuilder("b", "r", cases.Image);
        builder.Add(PlanCases.Start, bytes, Nops(8), new PlanOutcome { Label = "x", Type = 0, Action = PatchAction.Nop });
        foreach (bool whole in (bool[])[false, true])
        {
            var options = new PlanCheckOptions { SlotAddresses = [word], IsWhole = whole };
            Assert.Equal(
                isOriginal, builder.Build().TryCheckAgainst(cases.Image, cases.Sites, options, out IReadOnlyList<PatchDiagnostic> found));
            Assert.Equal(isOriginal ? [] : [DiagnosticCodes.PlanOldBytes], found.Select(static d => d.Code));
        }
    }

    [Fact]
    public void A_whole_plan_leaves_no_site_out()
    {
        PatchPlan plan = Forged(PlanCases.Start, _cases.Code.AsSpan(0, 8), Nops(8));
        plan.CheckAgainst(_cases.Image, _cases.Sites);
        Assert.False(plan.TryCheckAgainst(_cases.Image, _cases.Sites, WholeOptions(), out IReadOnlyList<PatchDiagnostic> found));
        Assert.Equal([PlanCases.Start + 8, PlanCases.Start + 16, PlanCases.Start + 24], found.Select(static d => d.Address!.Value.Value));
        Assert.All(found, static d => Assert.Equal(DiagnosticCodes.PlanSiteUnknown, d.Code));
    }

    [Fact]
    public void A_direct_call_is_an_original_where_its_target_is_named()
    {
        Nops(8).CopyTo(_cases.Code, 0);
        PatchPlan plan = Forged(PlanCases.Start, [0xe8, 0xfb, 0x0f, 0x00, 0x00, 0x0f, 0x1f, 0x00], Nops(8)); // call 0x401000; nop
        AssertRefused(plan, DiagnosticCodes.PlanOldBytes, PlanCases.Start);
        plan.CheckAgainst(_cases.Image, _cases.Sites, new PlanCheckOptions { DirectCallTargets = [PlanCases.Target] });
        AssertRefused(
            plan, DiagnosticCodes.PlanOldBytes, PlanCases.Start, new PlanCheckOptions { DirectCallTargets = [PlanCases.Target + 1] });
    }

    [Fact]
    public void New_bytes_that_are_no_instructions_are_refused()
    {
        byte[] half = [0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xe8];
        AssertRefused(Forged(PlanCases.Start, _cases.Code.AsSpan(0, 8), half), DiagnosticCodes.PlanInconsistent, PlanCases.Start);
    }

    [Fact]
    public void A_site_of_another_slot_is_refused()
    {
        var builder = new PlanBuilder("b", "r", _cases.Image);
        builder.Add(
            PlanCases.Start, _cases.Code.AsSpan(0, 8), Nops(8), new PlanOutcome { Label = "x", Type = 1, Action = PatchAction.Nop });
        AssertRefused(builder.Build(), DiagnosticCodes.PlanSiteUnknown, PlanCases.Start);
    }

    [Fact]
    public void What_lies_outside_the_image_is_refused()
    {
        AssertRefused(Forged(0x10, s_call, Nops(8)), DiagnosticCodes.PlanOutsideImage, 0x10);
        var narrow = new PlanCases(4, 32);
        PatchPlan plan = _cases.Plan(Operation.Nop);
        Assert.False(plan.TryCheckAgainst(narrow.Image, narrow.Sites, null, out IReadOnlyList<PatchDiagnostic> found));
        Assert.Equal(DiagnosticCodes.WrongBitness, Assert.Single(found).Code);
    }

    [Fact]
    public void Thunks_belong_to_the_image_where_they_may_be()
    {
        var cases = new PlanCases(2, clobbers: RegisterSet.Rax);
        var room = new AddressRange(PlanCases.Start + 16, 64);
        PatchPlan plan = cases.Plan(
            Operation.Call(PlanCases.Target, destroys: RegisterSet.Rax | RegisterSet.Rcx), new PlanOptions { Thunks = room });
        Assert.False(plan.TryCheckAgainst(cases.Image, cases.Sites, null, out _));
        plan.CheckAgainst(cases.Image, cases.Sites, new PlanCheckOptions { AlsoWritten = [new AddressRange(room.Address, room.Length)] });
    }

    private PatchPlan Whole(byte[] first)
    {
        var builder = new PlanBuilder("b", "r", _cases.Image);
        for (int i = 0; i < 4; i++)
        {
            ReadOnlySpan<byte> old = i == 0 ? first : _cases.Code.AsSpan(i * 8, 8);
            builder.Add(
                PlanCases.Start + (ulong)(i * 8), old, Nops(8), new PlanOutcome { Label = "x", Type = i, Action = PatchAction.Nop });
        }

        return PlanJson.Read(PlanJson.ToUtf8(builder.Build()));
    }

    private static PlanCheckOptions WholeOptions() => new()
    {
        IsWhole = true,
        SlotAddresses = Words(),
        OriginalsWithoutCall = new Dictionary<int, ReadOnlyMemory<byte>> { [0] = new byte[] { 0x0f, 0x01, 0xf8 } },
    };

    private static byte[] Nops(int length)
    {
        byte[] nops = new byte[length];
        NopStyle.P6.Fill(nops, 64);
        return nops;
    }

    private static List<VirtualAddress> Words() =>
        [.. Enumerable.Range(0, 4).Select(static i => new VirtualAddress(PlanCases.Table + (ulong)(i * 8)))];

    private PatchPlan Forged(ulong address, ReadOnlySpan<byte> old, ReadOnlySpan<byte> @new)
    {
        var builder = new PlanBuilder("b", "r", _cases.Image);
        builder.Add(address, old, @new, new PlanOutcome { Label = "x", Action = PatchAction.Nop });
        return PlanJson.Read(PlanJson.ToUtf8(builder.Build()));
    }

    private void AssertRefused(PatchPlan plan, string code, ulong address, PlanCheckOptions? options = null)
    {
        Assert.False(plan.TryCheckAgainst(_cases.Image, _cases.Sites, options, out IReadOnlyList<PatchDiagnostic> found));
        Assert.Equal((code, new VirtualAddress(address)), (Assert.Single(found).Code, found[0].Address));
        Assert.Equal(code, Assert.Throws<PatchException>(() => plan.CheckAgainst(_cases.Image, _cases.Sites, options)).Diagnostic.Code);
    }
}
