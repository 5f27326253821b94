using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>Blocks that slots lead to: none is retired under a slot.</summary>
public sealed unsafe class SlotTargetTests : IDisposable
{
    private readonly LiveCode _code = new();
    private readonly CodeArena _low = CodeArena.Reserve(0x10_0000_0000, 1 << 20); // out of a rel32's reach

    public void Dispose()
    {
        _code.Dispose();
        _low.Dispose();
    }

    [Theory]
    [InlineData("plain")]
    [InlineData("thunk")]
    [InlineData("far")]
    [InlineData("far thunk")]
    public void A_block_is_not_retired_while_a_slot_leads_to_it(string way)
    {
        CodeArena arena = way.StartsWith("far", StringComparison.Ordinal) ? _low : _code.Arena;
        VirtualAddress target = LiveCode.EmitHelper(arena, 7);
        Assert.True(arena.TryFindBlock(target, out CodeBlock? block));
        RegisterSet destroys = way.EndsWith("thunk", StringComparison.Ordinal) ? RegisterSet.Rax | RegisterSet.Rcx : RegisterSet.Rax;
        CodeBlock sites = _code.EmitFunction(new SiteWish(0), new SiteWish(2));
        using (LivePatcher patcher = _code.Patcher(_code.Direct))
        {
            patcher.Switch(To(target, destroys), SiteScope.Slot(_code.First));
            Assert.Equal((way != "plain" && way != "far", 2L), (SlotHolds(0) != target, LiveCode.Call(sites)));
            PatchDiagnostic held = Refused(arena, block);
            Assert.Equal(("PV8032", block.Address, _code.First.ToString()), (held.Code, held.Address, held.Found));
            patcher.Revert(); // slots go on holding their functions
            Assert.Equal("PV8032", Refused(arena, block).Code);
        }

        Assert.Equal("PV8032", Refused(arena, block).Code); // so they do without a patcher
        using LivePatcher next = _code.Patcher();
        next.Switch(_code.Nops, SiteScope.Slot(_code.First));
        arena.Retire(block);
        Assert.True(block.IsRetired);
    }

    [Fact]
    public void Each_slot_counts_and_a_switch_within_the_block_lets_nothing_go()
    {
        CodeBlock block = Block(_code.EmitHelper(7));
        using LivePatcher patcher = _code.Patcher(_code.Direct);
        patcher.Switch(To(block.Address));
        patcher.Switch(To(block.Address + 5)); // its ret
        Assert.Equal("t.first, t.second, t.third", Refused(_code.Arena, block).Found);
        patcher.Switch(_code.Direct, SiteScope.Slot(_code.Layout[1]));
        Assert.Equal("t.first, t.third", Refused(_code.Arena, block).Found);
        patcher.Switch(_code.Nops);
        _code.Arena.Retire(block);
        Assert.Equal(DiagnosticCodes.BlockRetired, patcher.TrySwitch(To(block.Address), LiveCode.Quiescent).Diagnostics[0].Code);
    }

    [Fact]
    public void A_batch_that_was_taken_back_or_refused_holds_nothing_and_lets_nothing_go()
    {
        (CodeBlock old, CodeBlock next) = (Block(_code.EmitHelper(7)), Block(_code.EmitHelper(8)));
        using LivePatcher patcher = _code.Patcher(To(old.Address));
        foreach (PatchStep at in new[] { PatchStep.Planned, PatchStep.Slot, PatchStep.Barrier, PatchStep.Publish })
        {
            patcher.Probe = (step, _) =>
            {
                if (step == at)
                {
                    throw new InvalidOperationException("injected");
                }
            };
            Assert.Equal(ApplyStatus.RolledBack, patcher.TrySwitch(To(next.Address), null).Status);
            Assert.Equal(("PV8032", 0), (Refused(_code.Arena, old).Code, next.SlotsInto.Count));
        }

        patcher.Probe = null;
        _ = patcher.Plan(c => c.Use(To(next.Address)));
        _code.Arena.Retire(next);
    }

    [Fact]
    public void A_slot_whose_site_could_not_be_taken_back_holds_both_blocks()
    {
        (CodeBlock old, CodeBlock next) = (Block(_code.EmitHelper(7)), Block(_code.EmitHelper(8)));
        using LivePatcher patcher = _code.Patcher(To(old.Address));
        CodeBlock sites = _code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned());
        patcher.Bind(sites);
        byte[] before = sites[0].ToArray();
        byte* first = _code.Arena.Memory.WriteView(sites[0].Address);
        patcher.Probe = (step, _) =>
        {
            if (step == PatchStep.Barrier)
            {
                *first = 0xcc; // a breakpoint, in the call that was written: it may be put back to either
                throw new InvalidOperationException("injected");
            }
        };
        Assert.Equal(ApplyStatus.Faulted, patcher.TrySwitch(To(next.Address), null).Status);
        patcher.Probe = null;
        Assert.All(new[] { old, next }, b => Assert.Equal("PV8032", Refused(_code.Arena, b).Code));
        before.CopyTo(new Span<byte>(first, before.Length));
        patcher.Switch(_code.Direct);
        _code.Arena.Retire([old, next]);
    }

    [Fact]
    public void Slots_of_an_arena_that_is_no_more_hold_nothing()
    {
        Assert.True(_low.TryFindBlock(LiveCode.EmitHelper(_low, 7), out CodeBlock? block));
        using (var other = new LiveCode())
        {
            using LivePatcher patcher = other.Patcher(Backend.Create("far", other.Layout, b => Array.ForEach(
                [.. other.Layout.Slots], s => b.Call(s.ToString(), block.Address, "seven", RegisterSet.Rax))));
            Assert.Equal("PV8032", Refused(_low, block).Code);
        }

        _low.Retire(block);
    }

    private static PatchDiagnostic Refused(CodeArena arena, CodeBlock block)
    {
        PatchDiagnostic held = Assert.Throws<PatchException>(() => arena.Retire(block)).Diagnostic;
        Assert.False(block.IsRetired);
        return held;
    }

    private VirtualAddress SlotHolds(int slot) => _code.Arena.SlotsOf(_code.Layout).FunctionOf(_code.Layout[slot]);

    private CodeBlock Block(VirtualAddress address)
    {
        Assert.True(_code.Arena.TryFindBlock(address, out CodeBlock? block));
        return block;
    }

    private Backend To(VirtualAddress target, RegisterSet? destroys = null) => Backend.Create("to", _code.Layout, b => Array.ForEach(
        [.. _code.Layout.Slots], s => b.Call(s.ToString(), target, "there", destroys ?? RegisterSet.Rax)));
}
