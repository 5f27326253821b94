using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>
/// Operations whose sites a backend leaves alone: live, they go back to the emitted call, and the slot does the operation.
/// </summary>
public sealed class LeftAloneTests
{
    [Fact]
    public void The_sites_get_their_emitted_bytes_back_and_the_slot_holds_the_backends_target()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Straddling(budget: 11)),
            code.EmitFunction(new SiteWish(0, 15, Start: 3))];
        byte[] original = LiveCode.Snapshot(blocks);
        Backend alone = code.Direct.Derive(
            "alone", b => b.Set("t.first", Operation.Call(code.Five, "five", RegisterSet.Rax).LeftAloneByBackend()));
        using LivePatcher patcher = code.Patcher();
        foreach (Backend before in (Backend[])[code.Inlined, code.Direct, code.Outlined])
        {
            patcher.Switch(before);
            Assert.NotEqual(original, LiveCode.Snapshot(blocks));
            ApplyResult result = patcher.Switch(alone);
            Assert.Equal(3, result.Written);
            Assert.Equal(original, LiveCode.Snapshot(blocks));
            Assert.Equal(code.Five, code.Arena.SlotsOf(code.Layout).FunctionOf(code.First));
            Assert.All(blocks, static b => Assert.Equal(5, LiveCode.Call(b)));
            Assert.Equal(
                (LiveForm.Original, PatchAction.LeaveAlone, PatchReason.BackendDeclines, LiveSiteState.Bound),
                (blocks[0][0].Form, blocks[0][0].Action, blocks[0][0].Reason, blocks[0][0].State));
        }

        // From one such backend to another only slots are stored: one barrier, no site.
        ApplyResult next = patcher.Switch(
            alone.Derive("next", b => b.Set("t.first", Operation.Call(code.Two, "two", RegisterSet.Rax).LeftAloneByBackend())));
        Assert.Equal((0, 1, 1), (next.Written, next.SlotsWritten, next.Barriers));
        Assert.All(blocks, static b => Assert.Equal(2, LiveCode.Call(b)));
    }

    [Fact]
    public void An_operation_without_a_target_gets_a_function_in_its_slot()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        patcher.Switch(code.Direct.Derive(
            "alone", b => b.Set("t.first", Operation.Inline(InlineBody.Create(LiveCode.AddThree)).LeftAloneByBackend())));
        Assert.Equal(LiveForm.Original, block[0].Form);
        Assert.Equal(3, LiveCode.Call(block));
    }

    /// <summary>A site of 30 bytes: what does not reach or destroys too much is left to the slot, with the reason.</summary>
    [Theory]
    [InlineData(false, PatchReason.OutOfReach, 8)]
    [InlineData(true, PatchReason.ClobbersTooMuch, 3)]
    public void A_long_site_is_made_indirect_and_the_reason_is_said(bool destroysTooMuch, object reason, long does)
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new LiveCode();
        VirtualAddress far = LiveCode.EmitHelper(low, 8);
        CodeBlock block = code.EmitFunction(new SiteWish(0, 30));
        byte[] original = block.ToArray();
        using LivePatcher patcher = code.Patcher();
        SwitchOptions options = LiveCode.Quiescent with { InPlace = true };
        patcher.Switch(code.Inlined, options);
        Assert.NotEqual(original, block.ToArray());
        Backend next = destroysTooMuch
            ? code.Direct.Derive("much", static b => b.Inline("t.first", static a =>
            {
                a.mov(rcx, 3); // rcx is not among what the site allows
                a.mov(rax, rcx);
            }))
            : code.Direct.Derive("far", b => b.Call("t.first", far, "far", RegisterSet.Rax));
        ApplyResult result = patcher.Switch(next, options);
        Assert.Equal((SiteChange.MadeIndirect, (PatchReason)reason), (result.Outcomes[0].Change, result.Outcomes[0].Reason));
        Assert.Equal((LiveForm.Original, (PatchReason)reason), (block[0].Form, block[0].Reason));
        Assert.Equal(original, block.ToArray());
        Assert.Equal(does, LiveCode.Call(block));
    }

    [Fact]
    public void Some_sites_are_not_left_to_a_slot_that_does_something_else()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Inlined);
        Backend alone = code.Direct.Derive(
            "alone", b => b.Set("t.first", Operation.Call(code.Five, "five", RegisterSet.Rax).LeftAloneByBackend()));
        Assert.True(patcher.Switch([block[0]], code.Direct).Succeeded); // can be done without the slot
        Assert.False(patcher.TrySwitch(alone, SiteScope.Sites(block[0]), null, out ApplyResult result));
        Assert.Equal(DiagnosticCodes.SiteNeedsSlot, result.Diagnostics[0].Code);
        Assert.Equal(2, LiveCode.Call(block));
        patcher.Switch([block[0]], code.Inlined);
        Assert.Equal(1, LiveCode.Call(block));
        patcher.Switch(code.First, alone);
        Assert.Equal(5, LiveCode.Call(block));
    }

    [Fact]
    public void Long_sites_are_left_alone_too()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 30));
        byte[] original = block.ToArray();
        using LivePatcher patcher = code.Patcher(code.Direct);
        Assert.NotEqual(original, block.ToArray());
        patcher.Switch(code.Direct.Derive(
            "alone", b => b.Set("t.first", Operation.Call(code.Five, "five", RegisterSet.Rax).LeftAloneByBackend())), LiveCode.Quiescent);
        Assert.Equal(original, block.ToArray());
        Assert.Equal(5, LiveCode.Call(block));
    }
}
