using PvPatch.Linux.BootText;
using PvPatch.Linux.Tests.Kernel;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>Call depth tracking: thunks before functions, and calls that go there.</summary>
public sealed class CallThunkTests
{
    private const ulong Template = TextSample.Code + 0x100;
    private const ulong Function = TextSample.Code + 0x200;
    private const ulong NoRoom = TextSample.Code + 0x300;
    private const ulong Skipped = TextSample.Code + 0x400;
    private const ulong Replaced = TextSample.Code + 0x500;
    private const ulong Depth = 0xffffffff82a00010;
    private const ulong Call = TextSample.Code + 0x1000;
    private const ulong Key = TextSample.Data + 0x10;
    private const string Thunk = "sarq $5, %gs:depth(%rip)";

    [Fact]
    public void A_call_goes_to_the_thunk_before_its_target()
    {
        TextSample sample = Sample();
        Assert.Equal(At(Call, Function - 9), Predict(sample, Call, 5));
        Assert.Equal(TextSample.Assembled(Thunk, Function - 9, ("depth", Depth)), Predict(sample, Function - 9, 9));
    }

    [Theory]
    [InlineData(NoRoom)]
    [InlineData(Skipped)]
    [InlineData(SyntheticKernel.InitText + 0x100)]
    public void A_call_of_a_function_without_a_thunk_stays(ulong target)
    {
        TextSample sample = Sample().PutBranch(Call, target, 0xe8);
        Assert.Equal(At(Call, target), Predict(sample, Call, 5));
    }

    [Fact]
    public void What_is_no_call_any_more_stays()
    {
        TextSample sample = Sample().Put(Call, 0x0f, 0x1f, 0x44, 0x00, 0x00);
        Assert.Equal("0f 1f 44 00 00", Predict(sample, Call, 5));
        Assert.Equal("90 90 90 90 90 90 90 90 90", Predict(sample, Function - 9, 9));
    }

    [Fact]
    public void Nothing_happens_where_the_feature_is_off_and_all_is_open_where_it_is_not_known()
    {
        TextSample sample = Sample();
        sample.Features = [];
        Assert.Equal(At(Call, Function), Predict(sample, Call, 5));
        sample.Features = null;
        Assert.Equal("open", Predict(sample, Call, 5));
    }

    [Fact]
    public void Only_6_12_patches_the_calls_of_alternatives()
    {
        const ulong Site = TextSample.Code + 0x1100;
        TextSample sample = Sample().PutBranch(Site, Function, 0xe8);
        sample.Kernel.AddAlternative(Site, 5, 70, false, 0xfa);
        Assert.Equal(At(Site, Function - 9), Predict(sample, Site, 5));
        Assert.Equal(At(Site, Function), Predict(sample, Site, 5, TextRules.Linux72));
    }

    [Fact]
    public void A_static_call_goes_to_the_thunk_whatever_it_was()
    {
        const ulong Site = TextSample.Code + 0x1200;
        const ulong Tail = TextSample.Code + 0x1300;
        TextSample sample = Sample().PutBranch(Site, Function, 0xe8).PutBranch(Tail, Function, 0xe9)
            .Record(".static_call_sites", Site, Key, Tail, Key + 1).Put(Key, BitConverter.GetBytes(Replaced));
        sample.StaticCalls.Add(Key, Function);
        sample.Symbol("__static_call_return0", Function);
        (TextImage text, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(
            TextRules.Linux72, TextMechanism.StaticCall, TextMechanism.CallThunk);
        Assert.Empty(findings);
        Assert.True(text.TryGet(Site, 5, out ReadOnlySpan<byte> bytes));
        Assert.Equal(At(Site, Function - 9), HexBytes.Format(bytes));
        Assert.True(text.TryGet(Tail, 5, out bytes));
        Assert.Equal(TextSample.Assembled("jmp f", Tail, ("f", Function)), HexBytes.Format(bytes));

        // What the key called before has a thunk, too.
        Assert.True(text.TryGet(Replaced - 9, 9, out bytes));
        Assert.Equal(TextSample.Assembled(Thunk, Replaced - 9, ("depth", Depth)), HexBytes.Format(bytes));
    }

    [Theory]
    [InlineData(0UL, "other", "none")] // emptied before there were thunks
    [InlineData(Function, "other", "thunk")]
    [InlineData(Function, "__SCK__pv_sched_clock", "open")]
    [InlineData(Replaced, "other", "thunk")]
    public void What_a_key_called_before_has_a_thunk_if_the_key_was_changed_late(ulong now, string key, string expected)
    {
        const ulong Site = TextSample.Code + 0x1200;
        TextSample sample = Sample().PutBranch(Site, Replaced, 0xe8)
            .Record(".static_call_sites", Site, Key).Put(Key, BitConverter.GetBytes(Replaced)).Symbol(key, Key);
        sample.StaticCalls.Add(Key, now);
        Assert.Equal(
            expected switch
            {
                "thunk" => TextSample.Assembled(Thunk, Replaced - 9, ("depth", Depth)),
                "open" => "open",
                _ => "90 90 90 90 90 90 90 90 90",
            },
            Predict(sample, Replaced - 9, 9));
    }

    [Fact]
    public void A_template_that_is_none_is_refused()
    {
        TextSample sample = Sample(Template + 4096);
        (_, IReadOnlyList<PatchDiagnostic> findings) = sample.Run(TextRules.Linux612, TextMechanism.CallThunk);
        Assert.Equal(KernelDiagnosticCodes.TextRecordOutside, Assert.Single(findings).Code);
    }

    private static TextSample Sample(ulong templateEnd = Template + 9)
    {
        var sample = new TextSample { Features = [MitigationFeatures.CallDepth] };
        sample.Put(Template, Support.Bytes.FromHex(TextSample.Assembled(Thunk, Template, ("depth", Depth))));
        foreach (ulong function in (ulong[])[Function, Skipped, Replaced])
        {
            sample.Put(function - 16, [.. Enumerable.Repeat((byte)0x90, 16)]);
        }

        return sample.PutBranch(Call, Function, 0xe8).Record(".call_sites", Call, SyntheticKernel.InitText)
            .Symbol("skl_call_thunk_template", Template).Symbol("skl_call_thunk_tail", templateEnd).Symbol("error_entry", Skipped);
    }

    private static string At(ulong address, ulong target) => TextSample.Assembled("call f", address, ("f", target));

    private static string Predict(TextSample sample, ulong address, int length, TextRules? rules = null) =>
        sample.Predict(rules ?? TextRules.Linux612, TextMechanism.CallThunk, address, length);
}
