using System.Buffers;
using System.Text.Json;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Memory;

public sealed class PlanDiffTests
{
    private const int All = DumpedKernel.SiteCount + DumpedKernel.InitSiteCount;
    private static readonly DumpedKernel s_kernel = new();

    [Fact]
    public void A_plan_differs_in_nothing_from_itself()
    {
        PlanDiff diff = PlanDiff.Compare(s_kernel.Native, s_kernel.Native);

        Assert.True(diff.AreEqual);
        Assert.Equal(All, diff.Common);
    }

    [Fact]
    public void Two_backends_differ_where_their_bytes_or_actions_do()
    {
        PlanDiff diff = PlanDiff.Compare(s_kernel.Native, s_kernel.Xen);

        // Of four sites three are different in bytes, one of them is a call instead of an instruction; the fourth is nops in both.
        int inline = (All + 3) / 4;
        Assert.Equal(All - All / 4 - 1, diff.Count(PlanDifferenceKinds.NewBytes));
        Assert.Equal(inline, diff.Count(PlanDifferenceKinds.Action));
        Assert.Equal(0, diff.Count(
            PlanDifferenceKinds.OldBytes | PlanDifferenceKinds.OnlyInFirst | PlanDifferenceKinds.OnlyInSecond | PlanDifferenceKinds.Label));
        Assert.Equal(PlanDifferenceKinds.NewBytes | PlanDifferenceKinds.Action, diff.Differences[0].Kinds);
        Assert.Contains("Inline fa 0f 1f 44 00 00 | Call e8", diff.Differences[0].ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Sites_only_one_plan_has_are_told_in_order()
    {
        PatchPlan few = KernelVerifierTests.With(s_kernel.Native, "few", All - 2, null);
        PlanDiff first = PlanDiff.Compare(s_kernel.Native, few);
        PlanDiff second = PlanDiff.Compare(few, s_kernel.Native);

        Assert.Equal((2, All - 2), (first.Common, first.Count(PlanDifferenceKinds.OnlyInFirst)));
        Assert.Equal(All - 2, second.Count(PlanDifferenceKinds.OnlyInSecond));
        Assert.Equal(first.Differences.Select(d => d.Address), first.Differences.Select(d => d.Address).Order());
        Assert.Null(first.Differences[0].Second);
        Assert.Null(second.Differences[0].First);
    }

    [Fact]
    public void Originals_of_another_build_differ()
    {
        PlanDiff diff = PlanDiff.Compare(s_kernel.Native, new DumpedKernel(form: SiteForm.Absolute).Native);

        // The same addresses with another length are other sites.
        Assert.Equal(0, diff.Common);
        Assert.Equal(2 * All, diff.Differences.Count);
    }

    [Fact]
    public void Json_has_format_version_and_counts()
    {
        PatchPlan lazy = KernelVerifierTests.With(s_kernel.Native, "lazy", 0, 4);
        var text = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(text))
        {
            PlanDiff.Compare(s_kernel.Native, lazy).WriteTo(json);
        }

        using JsonDocument document = JsonDocument.Parse(text.WrittenMemory);
        JsonElement root = document.RootElement;

        Assert.Equal("pvpatch-diff", root.GetProperty("format").GetString());
        Assert.Equal(1, root.GetProperty("version").GetInt32());
        Assert.Equal("lazy", root.GetProperty("second").GetProperty("backend").GetString());
        Assert.Equal(1, root.GetProperty("counts").GetProperty("newBytes").GetInt32());
        JsonElement site = Assert.Single(root.GetProperty("differences").EnumerateArray());
        Assert.Equal("0xffffffff81000228", site.GetProperty("address").GetString());
        Assert.Equal(["newBytes", "action"], site.GetProperty("kinds").EnumerateArray().Select(k => k.GetString()));
        Assert.Equal("leaveAlone", site.GetProperty("second").GetProperty("action").GetString());
        Assert.Equal("tooSmall", site.GetProperty("second").GetProperty("reason").GetString());
        Assert.Equal("fa 0f 1f 44 00 00", site.GetProperty("first").GetProperty("new").GetString());
    }
}
