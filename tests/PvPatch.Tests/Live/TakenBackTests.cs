using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>
/// What a batch that fails at a known step says of each site, and the barriers it has run: none for what was not written, one behind what
/// was put back.
/// </summary>
public sealed class TakenBackTests
{
    private const SiteChange No = SiteChange.NotWritten;
    private const SiteChange Back = SiteChange.RolledBack;

    // Links store no slot, so every barrier counted belongs to a site. A guarded site takes three to be written and three to be put back.
    [Theory]
    [InlineData(PatchStep.Planned, true, true, No, No, 0)]
    [InlineData(PatchStep.Store, true, true, No, No, 0)]
    [InlineData(PatchStep.Guard, true, true, Back, No, 1)]
    [InlineData(PatchStep.Barrier, true, true, Back, Back, 7)]
    [InlineData(PatchStep.Publish, true, true, Back, Back, 7)]
    [InlineData(PatchStep.Planned, true, false, No, null, 0)]
    [InlineData(PatchStep.Barrier, true, false, Back, null, 1)]
    [InlineData(PatchStep.Publish, true, false, Back, null, 2)]
    [InlineData(PatchStep.Guard, false, true, null, No, 0)]
    [InlineData(PatchStep.Barrier, false, true, null, Back, 7)]
    internal void Sites_written_are_taken_back_with_a_barrier_behind(
        PatchStep step, bool hasAtomic, bool hasGuarded, SiteChange? atomic, SiteChange? guarded, int barriers)
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling(1));
        using LivePatcher patcher = code.Patcher(code.Direct);
        Assert.Equal([SiteClass.Atomic8, SiteClass.Guarded], Enumerable.Range(0, 2).Select(i => block[i].Class));
        byte[] before = block.ToArray();
        SiteLink[] links = [
            .. Enumerable.Range(0, 2).Where(i => i == 0 ? hasAtomic : hasGuarded).Select(i => new SiteLink(block[i], code.Five))];
        FailAt(patcher, step);
        ApplyResult result = patcher.TryLink(links);
        Assert.Equal(ApplyStatus.RolledBack, result.Status);
        Assert.Equal("injected", result.Diagnostics[0].Message.Split(": ")[^1]);
        Assert.Equal(
            new[] { atomic, guarded }.OfType<SiteChange>(), Enumerable.Range(0, result.Count).Select(i => result.Outcomes[i].Change));
        Assert.Equal(barriers, result.Barriers);
        Assert.Equal(before, block.ToArray());
    }

    // Nobody runs the sites: one barrier before anyone enters, and one where any was written. The long site holds 30 bytes.
    [Theory]
    [InlineData(PatchStep.Planned, No, 0)]
    [InlineData(PatchStep.Slot, No, 0)]
    [InlineData(PatchStep.Store, No, 1)]
    [InlineData(PatchStep.Barrier, Back, 1)]
    [InlineData(PatchStep.Publish, Back, 2)]
    internal void A_quiescent_batch_is_taken_back(PatchStep step, SiteChange change, int barriers)
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), new SiteWish(1, 30), SiteWish.Straddling(2));
        using LivePatcher patcher = code.Patcher(code.Direct);
        SwitchOptions options = LiveCode.Quiescent with { InPlace = true };
        patcher.Switch(code.Inlined, options);
        byte[] before = block.ToArray();
        FailAt(patcher, step);
        ApplyResult result = patcher.TrySwitch(code.Outlined, options);
        Assert.Equal(ApplyStatus.RolledBack, result.Status);
        Assert.Equal([change, change, change], Enumerable.Range(0, result.Count).Select(i => result.Outcomes[i].Change));
        Assert.Equal(barriers, result.Barriers);
        Assert.Equal(before, block.ToArray());
        patcher.Probe = null;
        Assert.Equal(3, patcher.Switch(code.Outlined, options).Written);
        Assert.NotEqual(before, block.ToArray());
    }

    // The head of a body of several instructions is forwarded behind one barrier, then put back behind another, and a last one is run; or
    // it is written with the guarded sites.
    [Theory]
    [InlineData(PatchStep.Draining, No, 3)]
    [InlineData(PatchStep.Guard, Back, 3)]
    [InlineData(PatchStep.Barrier, Back, 8)]
    internal void Bodies_forwarded_around_are_taken_back_with_a_barrier_behind(PatchStep step, SiteChange atomic, int barriers)
    {
        using var code = new LiveCode();
        CodeBlock drained = code.EmitFunction(new SiteWish(0, 15, Start: 0, Forwarding: true));
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(1));
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Inlined, LiveCode.Quiescent);
        patcher.Switch(code.First, code.Outlined, LiveCode.Quiescent with { InPlace = true });
        Assert.Equal(LiveForm.InPlace, drained[0].Form);
        byte[] before = LiveCode.Snapshot([drained, block]);
        FailAt(patcher, step);
        ApplyResult result = patcher.TrySwitch(code.Direct);
        Assert.Equal(ApplyStatus.RolledBack, result.Status);
        Assert.Equal([Back, atomic], new[] { drained, block }.Select(b => result.Outcomes.Single(o => o.Address == b[0].Address).Change));
        Assert.Equal(barriers, result.Barriers);
        Assert.Equal(before, LiveCode.Snapshot([drained, block]));
        Assert.Equal(3, LiveCode.Call(drained));
    }

    [Fact]
    public void The_barriers_of_guards_are_run_by_native_code()
    {
        // Managed code could be stopped by the garbage collector while threads wait at a guard.
        using var platform = new FaultyPlatform { CountsNativeBarriers = true };
        using var code = new LiveCode(platform);
        CodeBlock block = code.EmitFunction(SiteWish.Straddling());
        using LivePatcher patcher = code.Patcher(code.Direct);
        platform.NativeBarriersLeft = 100;
        int managed = platform.Barriers;
        ApplyResult result = patcher.Switch(code.Inlined);
        Assert.Equal(3, result.Barriers);
        Assert.Equal((97, managed), (platform.NativeBarriersLeft, platform.Barriers));
        Assert.Equal(1, LiveCode.Call(block));
    }

    private static void FailAt(LivePatcher patcher, PatchStep at) => patcher.Probe = (step, _) =>
    {
        if (step == at)
        {
            throw new InvalidOperationException("injected");
        }
    };
}
