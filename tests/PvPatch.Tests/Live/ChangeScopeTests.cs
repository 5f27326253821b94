using PvPatch.Live;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>Several changes in one batch: each site does what the last change whose scope it is in says, and no other change leaks into it.</summary>
public sealed class ChangeScopeTests
{
    [Fact]
    public void Blocks_with_a_backend_of_their_own_each_do_what_theirs_says()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 5).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        patcher.Apply(c => c.Use(code.Inlined, SiteScope.Blocks(blocks[0], blocks[2])).Use(code.Outlined, SiteScope.Blocks(blocks[1], blocks[3])));
        Assert.Equal([1, 3, 1, 3, 2], blocks.Select(static b => LiveCode.Call(b)));
    }

    [Fact]
    public void A_block_with_a_backend_of_its_own_among_others_of_a_switch_is_the_only_one_that_has_it()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 3).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        patcher.Apply(c => c.Use(code.Outlined).Use(code.Inlined, SiteScope.Blocks(blocks[1])));
        Assert.Equal([3, 1, 3], blocks.Select(static b => LiveCode.Call(b)));

        // The later change counts, whichever is the narrower.
        patcher.Apply(c => c.Use(code.Inlined, SiteScope.Blocks(blocks[0])).Use(code.Direct));
        Assert.Equal([2, 2, 2], blocks.Select(static b => LiveCode.Call(b)));
    }

    [Fact]
    public void A_slot_named_again_by_a_later_change_holds_that_ones_function()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Aligned(1))];
        using LivePatcher patcher = code.Patcher();
        patcher.Apply(c => c.Use(code.Direct).Use(code.Inlined, SiteScope.Slot(code.First)), LiveCode.Quiescent);
        Assert.Equal([1, 2], blocks.Select(static b => LiveCode.Call(b)));
        patcher.Revert(LiveCode.Quiescent); // the calls through the slots
        Assert.Equal([LiveSiteState.Original, LiveSiteState.Original], blocks.Select(static b => b[0].State));
        Assert.Equal([1, 2], blocks.Select(static b => LiveCode.Call(b)));
    }

    [Fact]
    public void Slots_keep_their_backend_when_sites_are_reverted()
    {
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Inlined);
        patcher.Revert();
        CodeBlock later = code.EmitFunction(SiteWish.Aligned());
        patcher.Bind(later);
        Assert.Equal((LiveSiteState.Bound, 1), (later[0].State, LiveCode.Call(later)));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Unlinking_whatever_its_scope_gives_links_up(int scope)
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        patcher.Link(block[0], code.Five);
        Assert.Equal(5, LiveCode.Call(block));
        SiteScope[] scopes = [SiteScope.All, SiteScope.Slot(code.First), SiteScope.Blocks(block), SiteScope.Sites(block[0])];
        ApplyResult result = patcher.Unlink(scopes[scope]);
        Assert.Equal((1, 0), (result.Written, result.KeptLinks));
        Assert.Equal((LiveSiteState.Bound, 2), (block[0].State, LiveCode.Call(block)));
    }
}
