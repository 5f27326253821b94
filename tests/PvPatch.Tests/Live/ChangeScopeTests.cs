using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Live;

/// <summary>
/// Several changes in one batch: each site does what the last change whose scope it is in says, and no other change leaks into it.
/// </summary>
public sealed class ChangeScopeTests
{
    [Fact]
    public void Blocks_with_a_backend_of_their_own_each_do_what_theirs_says()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 5).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        patcher.Apply(
            c => c.Use(code.Inlined, SiteScope.Blocks(blocks[0], blocks[2])).Use(code.Outlined, SiteScope.Blocks(blocks[1], blocks[3])));
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
        patcher.Switch(code.Nops); // nothing of the batch before is left
        Assert.Equal([0, 0, 0], blocks.Select(static b => LiveCode.Call(b)));

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
    public void Links_ended_in_a_batch_are_not_brought_back_by_a_later_switch()
    {
        using var code = new LiveCode();
        CodeBlock target = code.EmitFunction(SiteWish.Aligned(1));
        CodeBlock caller = code.EmitFunction(SiteWish.Aligned());
        LiveSite site = caller[0];
        using LivePatcher patcher = code.Patcher(code.Direct);
        (string Name, bool Linked, Action<LiveChanges> Changes)[] cases =
        [
            ("switch", true, c => c.Use(code.Inlined)),
            ("all unlinked", false, c => c.Unlink(SiteScope.All).Use(code.Inlined)),
            ("slot unlinked", false, c => c.Unlink(SiteScope.Slot(code.First)).Use(code.Inlined)),
            ("block unlinked", false, c => c.Unlink(SiteScope.Blocks(caller)).Use(code.Inlined)),
            ("site unlinked", false, c => c.Unlink(SiteScope.Sites(site)).Use(code.Inlined)),
            ("all reverted", false, c => c.Revert().Use(code.Inlined)),
            ("unlinked, then bound", false, c => c.Unlink(SiteScope.All).Bind(caller)),
            ("site unlinked, then bound", false, c => c.Unlink(SiteScope.Sites(site)).Bind(caller)),
            ("another block unlinked", true, c => c.Unlink(SiteScope.Blocks(target)).Use(code.Inlined)),
            ("linked, unlinked", false, c => c.Link(new SiteLink(site, target.Address)).Unlink(SiteScope.All).Use(code.Inlined)),
            ("unlinked, linked", true, c => c.Unlink(SiteScope.All).Link(new SiteLink(site, target.Address)).Use(code.Inlined)),
        ];
        foreach ((string name, bool linked, Action<LiveChanges> changes) in cases)
        {
            patcher.Switch(code.Direct, new SwitchOptions { OverridesLinks = true });
            patcher.Link(site, target.Address);
            patcher.Apply(changes);
            Assert.True(linked == (site.State == LiveSiteState.Linked), $"{name}: {site.State}");
            if (!linked)
            {
                code.Arena.Retire(target); // nobody is linked to it any more
                target = code.EmitFunction(SiteWish.Aligned(1));
                patcher.Bind(target);
            }
        }
    }

    /// <summary>Two sites of a slot in two blocks and one of another slot, linked where the case says; what each does afterwards.</summary>
    [Fact]
    public void Of_links_and_other_changes_in_a_batch_the_later_one_counts_at_each_site()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [
            code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Aligned(1))];
        LiveSite[] sites = [.. blocks.Select(static b => b[0])];
        using LivePatcher patcher = code.Patcher(code.Direct);
        var overrides = new SwitchOptions { OverridesLinks = true };
        SiteLink ToFive(int i) => new(sites[i], code.Five);
        (string Name, SwitchOptions? Options, long[] Does, Action<LiveChanges> Changes)[] cases =
        [
            ("links in one of two blocks cut", null, [1, 5, 5],
                c => c.Unlink(SiteScope.Blocks(blocks[0])).Use(code.Inlined, SiteScope.Blocks(blocks[0], blocks[1]))),
            ("link, then a switch that overrides", overrides, [1, 1, 1], c => c.Link(ToFive(0)).Use(code.Inlined)),
            ("link, then a switch that does not", null, [5, 5, 5], c => c.Link(ToFive(0)).Use(code.Inlined)),
            ("a site, then all", overrides, [1, 1, 1], c => c.Use(code.Outlined, SiteScope.Sites(sites[0])).Use(code.Inlined)),
            ("all, then a site", overrides, [3, 1, 1], c => c.Use(code.Inlined).Use(code.Outlined, SiteScope.Sites(sites[0]))),
            ("bound against links", overrides, [2, 2, 5], c => c.Bind(blocks[0], blocks[1])),
            ("bound", null, [5, 5, 5], c => c.Bind(blocks[0], blocks[1])),
            ("cut, then linked", null, [5, 2, 2], c => c.Unlink(SiteScope.All).Link(ToFive(0))),
            ("another slot, then a link", overrides, [1, 1, 5], c => c.Use(code.Inlined, SiteScope.Slot(code.First)).Link(ToFive(2))),
            ("a link, then another slot", overrides, [1, 1, 5], c => c.Link(ToFive(2)).Use(code.Inlined, SiteScope.Slot(code.First))),
        ];
        foreach ((string name, SwitchOptions? options, long[] does, Action<LiveChanges> changes) in cases)
        {
            patcher.Switch(code.Direct, overrides);
            patcher.Link([ToFive(0), ToFive(1), ToFive(2)]);
            patcher.Apply(changes, options);
            Assert.True(does.SequenceEqual(blocks.Select(static b => LiveCode.Call(b))),
                $"{name}: {string.Join(' ', blocks.Select(static b => LiveCode.Call(b)))}");
        }
    }

    /// <summary>Where no backend was switched to, binding leaves a site as it is, or as an earlier change of the batch says.</summary>
    [Fact]
    public void Binding_where_nothing_is_bound_leaves_what_earlier_changes_say()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher();
        patcher.Apply(c => c.Use(code.Inlined, SiteScope.Sites(block[0])).Bind(block));
        Assert.Equal((LiveSiteState[])[LiveSiteState.Bound, LiveSiteState.Original], [block[0].State, block[1].State]);
        patcher.Link(block[0], code.Five);
        patcher.Apply(c => c.Bind(block));
        Assert.Equal((LiveSiteState[])[LiveSiteState.Linked, LiveSiteState.Original], [block[0].State, block[1].State]);
        patcher.Apply(c => c.Unlink(SiteScope.All).Bind(block));
        Assert.Equal((LiveSiteState[])[LiveSiteState.Original, LiveSiteState.Original], [block[0].State, block[1].State]);
    }

    /// <summary>A slot that somebody else wrote stops a batch that sets it, and no other.</summary>
    [Fact]
    public unsafe void A_batch_that_sets_no_slot_looks_at_none()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        *(ulong*)code.Arena.Memory.WriteView(code.Arena.SlotsOf(code.Layout).AddressOf(code.First)) = code.Five.Value;
        Assert.False(patcher.TrySwitch(code.Inlined).Succeeded);
        Assert.Equal(1, patcher.Switch([block[0]], code.Inlined).Written);
        Assert.Equal(1, LiveCode.Call(block));
    }

    /// <summary>A forwarding island calls through the slot: threads are not sent there while it holds nothing yet.</summary>
    [Fact]
    public void A_body_in_place_is_not_drained_into_a_slot_that_is_not_bound()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 15, Start: 0, Forwarding: true));
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher();
        patcher.Switch([block[0]], code.Outlined, LiveCode.Quiescent with { InPlace = true });
        Assert.Equal(LiveForm.InPlace, block[0].Form);
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, patcher.TrySwitch(code.Direct).Diagnostics[0].Code);
        Assert.Equal(3, LiveCode.Call(block));
        patcher.Switch(code.First, code.Outlined, LiveCode.Quiescent with { InPlace = true });
        Assert.True(patcher.TrySwitch(code.Direct).Succeeded);
        Assert.Equal(2, LiveCode.Call(block));
    }

    /// <summary>Bytes 15 and 16 of a line: no store changes such a site while threads run.</summary>
    [Fact]
    public void Before_anyone_enters_a_site_gets_what_its_slot_does_not_do_though_it_could_not_be_changed_live()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 6, Start: 15));
        Assert.Equal(SiteClass.QuiescentOnly, block[0].Class);
        using LivePatcher patcher = code.Patcher();
        var notEntered = new SwitchOptions { Mode = SwitchMode.NotEntered };
        Assert.Equal(1, patcher.Switch([block[0]], code.Direct, notEntered).Written);
        Assert.Equal(2, LiveCode.Call(block));
        Assert.Equal(1, patcher.Switch([block[0]], code.Inlined, notEntered).Written);
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void Islands_are_looked_for_by_one_thread_at_a_time()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Outlined); // the island is there: it has only to be found
        using var planned = new ManualResetEventSlim();
        patcher.Probe = (_, _) => planned.Set();
        code.Arena.Islands.Hold();
        var other = new Thread(() => patcher.Switch(code.Outlined)) { IsBackground = true };
        try
        {
            other.Start();
            Assert.False(planned.Wait(TimeSpan.FromMilliseconds(200)), "an island was looked for while another thread held their store");
        }
        finally
        {
            code.Arena.Islands.Release();
        }

        Assert.True(other.Join(TimeSpan.FromSeconds(60)), "it waits for ever");
        Assert.Equal(3, LiveCode.Call(block));
    }

    [Fact]
    public void What_an_earlier_patcher_put_into_a_slot_serves_a_later_ones_sites()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Straddling(0, 16));
        using (LivePatcher first = code.Patcher())
        {
            first.Switch(code.Direct, LiveCode.Quiescent);
            first.Revert(LiveCode.Quiescent);
        }

        using LivePatcher second = code.Patcher();
        Assert.Same(code.Direct, second.Current);
        Assert.True(second.TryApply(c => c.Use(code.Direct, SiteScope.Sites(block[0])), null, out ApplyResult result), $"{result}");
        Assert.Equal(2, LiveCode.Call(block));
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

    [Fact]
    public void A_missing_operation_is_reported_once_for_a_slot()
    {
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned(), SiteWish.Aligned(1), SiteWish.Aligned(1));
        using LivePatcher patcher = code.Patcher();
        ApplyResult result = patcher.Switch(Backend.Create("none", code.Layout, static b => b.Nop("t.third")), LiveCode.Quiescent);
        string[] found = [
            .. result.Diagnostics.Where(static d => d.Code == DiagnosticCodes.MissingOperation).Select(static d => d.Message)];
        Assert.Single(found, static m => m.Contains("t.first", StringComparison.Ordinal));
        Assert.Single(found, static m => m.Contains("t.second", StringComparison.Ordinal));
        Assert.Equal(2, found.Length);
    }

    [Fact]
    public void Islands_can_be_placed_by_one_thread_after_another()
    {
        using var code = new LiveCode();
        CodeBlock first = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Outlined, LiveCode.Quiescent); // an island for its two instructions
        CodeBlock second = code.EmitFunction(SiteWish.Aligned());
        var other = new Thread(() => patcher.Switch(code.Outlined, LiveCode.Quiescent)) { IsBackground = true };
        other.Start();
        Assert.True(other.Join(TimeSpan.FromSeconds(60)), "it waits for ever");
        Assert.Equal((3, 3), (LiveCode.Call(first), LiveCode.Call(second)));
    }

    [Fact]
    public void A_block_that_is_not_the_patchers_is_refused_and_it_is_said_why()
    {
        using var code = new LiveCode();
        using var other = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Inlined);
        CodeBlock retired = code.EmitFunction(SiteWish.Aligned());
        code.Arena.Retire(retired);
        Assert.Contains("was retired", Refusal(retired), StringComparison.Ordinal);
        Assert.Contains("another arena's", Refusal(other.EmitFunction(SiteWish.Aligned())), StringComparison.Ordinal);
        Assert.Contains("another arena's", Refusal(other.EmitFunction()), StringComparison.Ordinal);
        patcher.Bind(code.EmitFunction()); // nothing to bind

        OpsLayout layout = OpsLayout.Create(static b => b.Table("u", static t => t.Slot("op"), CallConvention.SysV));
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        sites.Emit(a, layout[0]);
        Assert.Contains("layout's", Refusal(code.Arena.Emit(a, sites)), StringComparison.Ordinal);

        string Refusal(CodeBlock block)
        {
            Assert.False(patcher.TryBind([block], out ApplyResult result));
            Assert.Equal(DiagnosticCodes.BlockRetired, result.Diagnostics[0].Code);
            return result.Diagnostics[0].Message;
        }
    }

    [Fact]
    public void A_switch_that_waits_in_vain_says_how_long_and_for_whom()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Inlined);
        using var ready = new ManualResetEventSlim();
        using var done = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            using Executor executor = code.Arena.RegisterExecutor("busy");
            executor.Enter();
            ready.Set();
            done.Wait();
            executor.Leave();
        });
        thread.Start();
        ready.Wait();
        try
        {
            PatchDiagnostic late = patcher.TrySwitch(code.Direct, LiveCode.Quiescent with { Timeout = TimeSpan.FromMilliseconds(20) })
                .Diagnostics[^1];
            Assert.Equal((DiagnosticCodes.NotQuiescent, "still, after 20 ms"), (late.Code, late.Found));
            Assert.Contains("busy", late.Message, StringComparison.Ordinal);
            using var cancel = new CancellationTokenSource();
            cancel.Cancel();
            PatchDiagnostic cancelled = patcher.TrySwitch(code.Direct, LiveCode.Quiescent with { Cancellation = cancel.Token })
                .Diagnostics[^1];
            Assert.Equal((DiagnosticCodes.NotQuiescent, "still, when the wait was cancelled"), (cancelled.Code, cancelled.Found));
        }
        finally
        {
            done.Set();
            thread.Join();
        }
    }
}
