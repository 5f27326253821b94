using System.Reflection;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>Links into blocks that are given up: no site leads into a retired block.</summary>
public sealed unsafe class LinkRetirementTests
{
    [Fact]
    public void A_backend_that_leads_into_a_retired_block_is_switched_to_no_more()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] blocks = [code.EmitFunction(new SiteWish(0)), code.EmitFunction(new SiteWish(1, 7))];
        patcher.Bind(blocks); // bodies and functions of the backend are made, and kept
        Assert.Equal([2, 2], blocks.Select(static b => LiveCode.Call(b)));
        patcher.Switch(code.Inlined);
        using var inside = new ManualResetEventSlim(); // while somebody is inside, the block is not reclaimed
        using var leave = new ManualResetEventSlim();
        var reader = new Thread(() =>
        {
            using Executor other = code.Arena.RegisterExecutor();
            other.Enter();
            inside.Set();
            leave.Wait();
            other.Leave();
        });
        reader.Start();
        inside.Wait();
        Assert.True(code.Arena.TryFindBlock(code.Two, out CodeBlock? two));
        code.Arena.Retire(two);
        foreach (SiteScope? scope in new[] { null, SiteScope.Slot(code.First), SiteScope.Sites(blocks[0][0]), SiteScope.Blocks(blocks) })
        {
            Assert.False(patcher.TrySwitch(code.Direct, scope, null, out ApplyResult result), $"{scope}: {result}");
            Assert.Contains(result.Diagnostics, static d => d.Code == DiagnosticCodes.BlockRetired);
        }

        Assert.Equal([1, 1], blocks.Select(static b => LiveCode.Call(b)));
        leave.Set();
        reader.Join();
    }

    [Fact]
    public void Unlinked_from_a_block_no_site_leads_into_it_and_its_room_can_be_reused()
    {
        using var code = new LiveCode();
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] targets = [Target(10), Target(11), Target(12)];
        CodeBlock[] sites = [.. Enumerable.Range(0, 6).Select(i => code.EmitFunction(new SiteWish(0, 6 + i)))];
        patcher.Bind(sites);
        // half of them by thunks
        patcher.Link([.. sites.Select(
            (b, i) => new SiteLink(b[0], targets[i % 3].Address, i < 3 ? RegisterSet.Rax : RegisterSet.Rax | RegisterSet.Rdx))]);
        Assert.Equal([10, 11, 12, 10, 11, 12], sites.Select(static b => LiveCode.Call(b)));
        foreach (CodeBlock target in targets)
        {
            Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(target)).Diagnostic.Code);
            Assert.False(target.IsRetired);
        }

        Assert.Empty(patcher.UnlinkFrom([sites[0]]).Outcomes); // its own site leads elsewhere; none leads into it
        ApplyResult result = patcher.UnlinkFrom([targets[2], targets[0]]);
        Assert.Equal((4, 4), (result.Count, result.Written));
        Assert.Equal([2, 11, 2, 2, 11, 2], sites.Select(static b => LiveCode.Call(b)));
        code.Arena.Retire(targets[0]);
        Assert.All(code.Arena.Memory.Span(targets[0].Address, targets[0].Length).ToArray(), static b => Assert.Equal(0xcc, b));
        Assert.Equal(DiagnosticCodes.BlockRetired, Assert.Throws<PatchException>(() => patcher.UnlinkFrom([targets[0]])).Diagnostic.Code);
        Assert.Equal([2, 11, 2, 2, 11, 2], sites.Select(static b => LiveCode.Call(b)));

        CodeBlock Target(int result)
        {
            var a = new Assembler(64);
            a.mov(eax, result);
            a.ret();
            return code.Arena.Emit(a, new SiteEmitter(code.Layout));
        }
    }

    [Fact]
    public void Unlinking_from_a_block_touches_no_site_that_is_linked_elsewhere()
    {
        const int Blocks = 50;
        const int SitesInBlock = 1000;
        using var code = new LiveCode(size: 8 << 20);
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock target = code.EmitFunction(new SiteWish(0));
        CodeBlock other = code.EmitFunction(new SiteWish(0));
        CodeBlock own = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned(), SiteWish.Aligned());
        SiteWish[] wishes = [.. Enumerable.Repeat(SiteWish.Aligned(), SitesInBlock)];
        CodeBlock[] elsewhere = [.. Enumerable.Range(0, Blocks).Select(_ => code.EmitFunction(wishes))];
        patcher.Bind([own, .. elsewhere]);
        patcher.Link([.. elsewhere.SelectMany(b => Enumerable.Range(0, SitesInBlock).Select(i => new SiteLink(b[i], other.Address)))]);
        patcher.Link([.. Enumerable.Range(0, 3).Select(i => new SiteLink(own[i], target.Address))]);
        Assert.Equal((3, Blocks * SitesInBlock), (target.LinksInto.Count, other.LinksInto.Count));

        // Without their records, whoever looks at a site of these blocks fails.
        FieldInfo field = typeof(CodeBlock).GetField("_records", BindingFlags.NonPublic | BindingFlags.Instance)!;
        SiteRecord[][] records = [.. elsewhere.Select(static b => b.Records)];
        Array.ForEach(elsewhere, b => field.SetValue(b, null));
        ApplyResult result = patcher.UnlinkFrom([target]);
        Assert.Throws<NullReferenceException>(() => elsewhere[0].SiteCount);
        for (int i = 0; i < Blocks; i++)
        {
            field.SetValue(elsewhere[i], records[i]);
        }

        Assert.Equal((3, 3), (result.Count, result.Written));
        Assert.Equal((0, Blocks * SitesInBlock), (target.LinksInto.Count, code.Arena.Ledger.Count));
        code.Arena.Retire(target);
        Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(other)).Diagnostic.Code);
    }

    [Theory]
    [InlineData("unlink from")]
    [InlineData("unlink")]
    [InlineData("switch sites")]
    [InlineData("revert sites")]
    [InlineData("revert")]
    [InlineData("take links")]
    [InlineData("link elsewhere")]
    public void Every_way_out_of_a_link_lets_the_target_be_retired(string way)
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock other = code.EmitFunction(new SiteWish(2), new SiteWish(1, 30));
        CodeBlock target = code.EmitFunction(new SiteWish(0), new SiteWish(1), new SiteWish(0, 30));
        LiveSite[] outside = [other[0], other[1]];

        // From elsewhere and from the block itself; a link made twice is one link, and a switch leaves it.
        patcher.Link([.. outside.Append(target[0]).Append(target[2]).Select(s => new SiteLink(s, target.Address))], LiveCode.Quiescent);
        patcher.Link(other[0], target.Address);
        patcher.Switch(code.Outlined, LiveCode.Quiescent);
        Assert.Equal(4, target.LinksInto.Count);
        Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(target)).Diagnostic.Code);
        Assert.Equal((4, 4), (target.LinksInto.Count, code.Arena.Ledger.Count));
        _ = way switch
        {
            "unlink from" => patcher.UnlinkFrom([target], LiveCode.Quiescent),
            "unlink" => patcher.Unlink(outside, LiveCode.Quiescent),
            "switch sites" => patcher.Switch(outside, code.Inlined, LiveCode.Quiescent),
            "revert sites" => patcher.Revert(outside, LiveCode.Quiescent),
            "revert" => patcher.Revert(LiveCode.Quiescent),
            "take links" => patcher.Switch(code.Nops, LiveCode.Quiescent with { OverridesLinks = true }),
            _ => patcher.Link([.. outside.Select(s => new SiteLink(s, code.Five))], LiveCode.Quiescent),
        };
        code.Arena.Retire(target);
        Assert.Equal((0, way == "link elsewhere" ? 2 : 0), (target.LinksInto.Count, code.Arena.Ledger.Count));
    }

    [Fact]
    public void A_batch_of_links_that_fails_counts_nothing()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        CodeBlock target = code.EmitFunction(SiteWish.Aligned());
        patcher.Probe = static (step, _) => throw new InvalidOperationException($"{step}");
        Assert.Equal(ApplyStatus.RolledBack, patcher.TryLink([new(block[0], target.Address)]).Status);
        patcher.Probe = null;
        Assert.Equal((0, 0), (target.LinksInto.Count, code.Arena.Ledger.Count));
        code.Arena.Retire(target);
    }

    [Theory]
    [InlineData("bound")]
    [InlineData("linked elsewhere")]
    [InlineData("linked to the same block")]
    public void A_link_that_could_not_be_taken_back_holds_the_blocks_it_may_lead_to(string before)
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned(), SiteWish.Aligned());
        CodeBlock target = code.EmitFunction(SiteWish.Aligned());
        CodeBlock other = code.EmitFunction(SiteWish.Aligned());
        patcher.Bind(block);
        CodeBlock? linked = before switch { "bound" => null, "linked elsewhere" => other, _ => target };
        if (linked is not null)
        {
            patcher.Link(block[0], linked.Address);
        }

        byte[] old = block[0].ToArray();
        byte* first = code.Arena.Memory.WriteView(block[0].Address);
        patcher.Probe = (step, index) =>
        {
            if (step == PatchStep.Store && index == 2)
            {
                *first = 0xcc; // a breakpoint, in the link that was written
                throw new InvalidOperationException("injected");
            }
        };
        VirtualAddress entry = target.Address + 4; // behind sub rsp,8
        ApplyResult result = patcher.TryLink([.. Enumerable.Range(0, 3).Select(i => new SiteLink(block[i], entry))]);
        patcher.Probe = null;
        Assert.Equal(ApplyStatus.Faulted, result.Status);
        Assert.Equal([SiteChange.Faulted, SiteChange.RolledBack, SiteChange.NotWritten], result.Outcomes.Select(static o => o.Change));
        Assert.Equal(LiveSiteState.Faulted, block[0].State);

        // The breakpoint goes, and the site leads into the new target; it may be put back to the old one as well.
        Assert.Equal(1, target.LinksInto.Count);
        CodeBlock[] held = linked is null ? [target] : [target, linked];
        Assert.All(held, b => Assert.Equal(
            DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(b)).Diagnostic.Code));
        Assert.Equal(
            DiagnosticCodes.UnexpectedLiveBytes, Assert.Throws<PatchException>(() => patcher.UnlinkFrom([target])).Diagnostic.Code);
        Assert.Equal(1, target.LinksInto.Count);

        // Its bytes are known again, and the next batch says where it leads.
        old.CopyTo(new Span<byte>(first, old.Length));
        Assert.Equal(1, patcher.UnlinkFrom([target]).Count);
        Assert.Equal(LiveSiteState.Bound, block[0].State);
        Assert.Equal((0, 0, 0), (target.LinksInto.Count, other.LinksInto.Count, code.Arena.Ledger.Count));
        code.Arena.Retire([target, other]);
    }

    [Fact]
    public void A_link_that_could_not_be_taken_back_goes_with_its_own_block()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned());
        CodeBlock target = code.EmitFunction(SiteWish.Aligned());
        patcher.Bind(block);
        byte* first = code.Arena.Memory.WriteView(block[0].Address);
        patcher.Probe = (step, index) =>
        {
            if (step == PatchStep.Barrier)
            {
                *first = 0xcc;
                throw new InvalidOperationException("injected");
            }
        };
        Assert.Equal(ApplyStatus.Faulted, patcher.TryLink([new(block[0], target.Address)]).Status);
        patcher.Probe = null;
        Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(target)).Diagnostic.Code);
        code.Arena.Retire(block);
        Assert.Empty(patcher.UnlinkFrom([target]).Outcomes);
        code.Arena.Retire(target);
    }

    [Fact]
    public void Blocks_that_are_linked_to_each_other_are_retired_together()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] ring = [.. Enumerable.Range(0, 3).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        patcher.Bind(ring);
        patcher.Link([.. ring.Select((b, i) => new SiteLink(b[0], ring[(i + 1) % 3].Address))]);
        CodeBlock[] two = [ring[0], ring[1]];
        Assert.Equal(DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(two)).Diagnostic.Code);
        Assert.Equal([1, 1, 1], ring.Select(static b => b.LinksInto.Count));
        code.Arena.Retire(ring);
        Assert.Equal(0, code.Arena.Ledger.Count);
    }
}
