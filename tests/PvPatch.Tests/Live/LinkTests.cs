using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>
/// Sites with targets of their own: what they hold, what takes them from their targets and what does not, what is refused.
/// </summary>
public sealed unsafe class LinkTests
{
    [Fact]
    public void A_site_of_any_class_leads_to_its_own_target_and_back()
    {
        using var code = new LiveCode(size: 8 << 20);
        var blocks = new List<CodeBlock>();
        for (int start = 0; start < 64; start++)
        {
            for (int budget = 6; budget <= 15; budget++)
            {
                blocks.Add(code.EmitFunction(new SiteWish(start % 3, budget, Start: start)));
            }
        }

        byte[] original = LiveCode.Snapshot(blocks);
        VirtualAddress[] targets = [.. blocks.Select((_, i) => code.EmitHelper(100 + i))];
        using LivePatcher patcher = code.Patcher(code.Inlined);
        byte[] inlined = LiveCode.Snapshot(blocks);
        SiteLink[] links = [.. blocks.Select((b, i) => new SiteLink(b[0], targets[i], RegisterSet.Rax))];
        Assert.Equal(64, blocks.Select(static b => b[0].Address.Value % 64).Distinct().Count());

        SiteLink[] live = [.. links.Where(static l => l.Site.Class != SiteClass.QuiescentOnly)];
        Assert.Equal(live.Length, patcher.Link(live).Written);
        Assert.Equal(links.Length - live.Length, patcher.Link(links, LiveCode.Quiescent).Written);
        for (int i = 0; i < blocks.Count; i++)
        {
            LiveSite site = blocks[i][0];
            Assert.Equal(100 + i, LiveCode.Call(blocks[i]));
            Assert.Equal((LiveSiteState.Linked, LiveForm.Call, PatchAction.Call), (site.State, site.Form, site.Action));
            Assert.Equal(targets[i], site.Target);
            (ulong _, int length, string text) = Assert.Single(CapstoneReader.Disassemble(site.ToArray(), site.Address.Value, 64));
            Assert.Equal(site.Budget, length); // and so the call ends where the site ends
            Assert.Equal($"call 0x{targets[i].Value:x}", text);
        }

        Assert.Equal(live.Length, patcher.Unlink([.. live.Select(static l => l.Site)]).Written);
        patcher.Unlink([.. blocks.Select(static b => b[0])], LiveCode.Quiescent);
        Assert.Equal(inlined, LiveCode.Snapshot(blocks));
        Assert.All(blocks, static b => Assert.Equal((LiveSiteState.Bound, (VirtualAddress?)null), (b[0].State, b[0].Target)));
        patcher.Link(links, LiveCode.Quiescent);
        patcher.Revert(LiveCode.Quiescent);
        Assert.Equal(original, LiveCode.Snapshot(blocks));
        Assert.All(blocks, static b => Assert.Equal(LiveSiteState.Original, b[0].State));
    }

    [Fact]
    public void A_jump_site_becomes_a_jump_so_that_blocks_can_be_chained()
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("link", t => t.Slot("next", SlotKind.Jump)));
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var leave = new Assembler(64);
        leave.lea(eax, __[rax + 100]);
        leave.ret();
        VirtualAddress dispatcher = arena.Emit(leave, new SiteEmitter(layout)).Address;
        using var patcher = new LivePatcher(arena, layout);
        patcher.Switch(Backend.Create("dispatch", layout, b => b.Jump("link.next", dispatcher)), LiveCode.Quiescent);

        CodeBlock Block(int number, int start, bool forwarding)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter(layout);
            a.mov(eax, number);
            sites.Emit(a, layout[0], 6, RegisterSet.None, SitePlacement.None, SiteTraits.None, forwarding, start);
            return arena.Emit(a, sites);
        }

        CodeBlock[] blocks = [Block(1, 0, false), Block(2, 60, true), Block(3, 13, false)];
        CodeBlock last = Block(4, 0, false);
        patcher.Bind([.. blocks, last]);
        Assert.Equal([101, 102, 103], blocks.Select(static b => LiveCode.Call(b)));
        ApplyResult result = patcher.Link(
            [new(blocks[0][0], blocks[1].Address), new(blocks[1][0], blocks[2].Address), new(blocks[2][0], last.Address)]);
        Assert.Equal(3, result.Written);
        Assert.All(blocks, static b => Assert.Equal((LiveForm.Jump, PatchAction.Jump), (b[0].Form, b[0].Action)));
        Assert.All(blocks, static b => Assert.Equal(104, LiveCode.Call(b)));
        (ulong _, int length, string text) = Assert.Single(
            CapstoneReader.Disassemble(blocks[1][0].ToArray(), blocks[1][0].Address.Value, 64));
        Assert.Equal((6, $"jmp 0x{blocks[2].Address.Value:x}"), (length, text));

        // To itself would be for ever; to the dispatcher again.
        patcher.Unlink([blocks[1][0]]);
        Assert.Equal([102, 102, 104], blocks.Select(static b => LiveCode.Call(b)));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_target_out_of_reach_is_led_to_by_one_jump_of_the_arena(bool behindThunk)
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new LiveCode();
        Assert.False(code.Arena.Reaches(low.Address));
        VirtualAddress far = LiveCode.EmitHelper(low, 8);
        CodeBlock[] blocks = [
            code.EmitFunction(new SiteWish(0)), code.EmitFunction(new SiteWish(1, 11)), code.EmitFunction(new SiteWish(0, 40))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        RegisterSet destroys = behindThunk ? RegisterSet.Rax | RegisterSet.Rdx : RegisterSet.Rax;
        patcher.Link([.. blocks.Select(b => new SiteLink(b[0], far, destroys))], LiveCode.Quiescent);
        Assert.All(blocks, static b => Assert.Equal(8, LiveCode.Call(b)));
        Assert.Equal([far, far, far], blocks.Select(static b => b[0].Target));
        long used = code.Arena.Used;
        CodeBlock another = code.EmitFunction(new SiteWish(2));
        long block = code.Arena.Used - used;
        patcher.Link([new SiteLink(another[0], far, destroys)]);
        Assert.Equal(8, LiveCode.Call(another));
        Assert.Equal(used + block, code.Arena.Used);
        patcher.Unlink([.. blocks.Select(static b => b[0])], LiveCode.Quiescent);
        Assert.All(blocks, static b => Assert.Equal(2, LiveCode.Call(b)));
    }

    [Fact]
    public void A_target_that_destroys_too_much_is_called_through_a_thunk()
    {
        using var code = new LiveCode();
        var a = new Assembler(64);
        a.mov(ecx, 99);
        a.mov(eax, 2);
        a.ret();
        VirtualAddress wild = code.Arena.Emit(a, new SiteEmitter(code.Layout)).Address;
        a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        a.sub(rsp, 8);
        a.mov(ecx, 40);
        sites.Emit(a, code.First, 6, RegisterSet.Rax);
        a.add(eax, ecx); // 42 if rcx was kept
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        using LivePatcher patcher = code.Patcher(code.Nops);
        ApplyResult result = patcher.Link([new SiteLink(block[0], wild, RegisterSet.Rax | RegisterSet.Rcx)]);
        Assert.Equal((PatchAction.ThunkCall, LiveForm.Call), (result.Outcomes[0].Action, block[0].Form));
        Assert.Equal(wild, block[0].Target);
        Assert.Equal(42, LiveCode.Call(block));
    }

    [Fact]
    public void What_a_site_can_not_lead_to_is_refused_and_nothing_is_written()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0), new SiteWish(1));
        using LivePatcher patcher = code.Patcher(code.Inlined);
        byte[] before = block.ToArray();
        ApplyResult result = patcher.TryLink([new(block[0], code.Five), new(block[1], code.Five, RegisterSet.Rax | RegisterSet.Vector)]);
        Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.SiteLink, 1),
            (result.Status, result.Diagnostics[0].Code, result.Diagnostics[0].SiteIndex));
        Assert.Contains("ClobbersTooMuch", result.Diagnostics[0].Message, StringComparison.Ordinal);
        byte[] data = GC.AllocateArray<byte>(64, pinned: true);
        fixed (byte* pointer = data)
        {
            result = patcher.TryLink([new(block[0], (ulong)pointer)]);
            Assert.Equal(DiagnosticCodes.TargetNotExecutable, result.Diagnostics[0].Code);
        }

        VirtualAddress slot = code.Arena.SlotsOf(code.Layout).Address; // in the arena, and data
        Assert.Equal(DiagnosticCodes.TargetNotExecutable, patcher.TryLink([new(block[0], slot)]).Diagnostics[0].Code);
        Assert.Equal(DiagnosticCodes.BlockRetired, patcher.TryLink([new(default, code.Five)]).Diagnostics[0].Code);
        CodeBlock gone = code.EmitFunction(new SiteWish(0));
        code.Arena.Retire(gone);
        Assert.Equal(DiagnosticCodes.BlockRetired, patcher.TryLink([new(block[0], gone.Address)]).Diagnostics[0].Code);
        Assert.Equal(before, block.ToArray());
        Assert.Equal(LiveSiteState.Bound, block[0].State);
    }

    [Fact]
    public void Links_outlive_switches_of_all_sites_and_of_a_slot()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        patcher.Link(block[0], code.Five);
        byte[] linked = block[0].ToArray();
        ApplyResult all = patcher.Switch(code.Outlined);
        Assert.Equal((1, 1, SiteChange.KeptLink), (all.Written, all.KeptLinks, all.Outcomes[0].Change));
        Assert.Contains("1 kept links", all.ToString(), StringComparison.Ordinal);
        Assert.Equal(8, LiveCode.Call(block)); // 5, then 3 more
        Assert.Equal(SiteChange.KeptLink, patcher.Switch(code.First, code.Nops).Outcomes[0].Change);
        Assert.Equal(SiteChange.KeptLink, patcher.Bind(block).Outcomes[0].Change);
        Assert.Equal(linked, block[0].ToArray());
        Assert.Equal((LiveSiteState.Linked, code.Five), (block[0].State, block[0].Target!.Value));
        patcher.Unlink([block[0]]);
        Assert.Equal(0, LiveCode.Call(block)); // what the slot was switched to meanwhile: nops
    }

    [Fact]
    public void What_names_a_linked_site_or_asks_for_links_takes_it()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        Action[] takers =
        [
            () => patcher.Switch([block[0]], code.Inlined),
            () => patcher.Switch(code.Inlined, new SwitchOptions { OverridesLinks = true }),
            () => patcher.Switch(code.First, code.Inlined, LiveCode.Quiescent with { OverridesLinks = true }),
        ];
        foreach (Action take in takers)
        {
            patcher.Link(block[0], code.Five);
            Assert.Equal(5, LiveCode.Call(block));
            take();
            Assert.Equal((LiveSiteState.Bound, LiveForm.OneInstruction), (block[0].State, block[0].Form));
            Assert.Equal(1, LiveCode.Call(block));
        }
    }

    [Fact]
    public void A_site_named_twice_gets_the_later_wish_and_the_same_link_again_is_no_write()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned(), SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Nops);
        ApplyResult result = patcher.Link(
            [new(block[0], code.Two), new(block[1], code.Two), new(block[0], code.Five), new(block[1], null)]);
        Assert.Equal((2, 1), (result.Count, result.Written));
        Assert.Equal(5, LiveCode.Call(block));
        result = patcher.Link(block[0], code.Five);
        Assert.Equal((0, 0, SiteChange.AlreadyThere), (result.Written, result.Barriers, result.Outcomes[0].Change));
        Assert.Equal(LiveSiteState.Linked, block[0].State);
    }

    [Fact]
    public void A_site_that_changes_only_at_quiescence_is_not_said_to_be_linked()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 6, Start: 63));
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Direct); // live: it stays indirect
        ApplyResult result = patcher.TryLink([new(block[0], code.Five)]);
        Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.NeedsQuiescence), (result.Status, result.Diagnostics[0].Code));
        Assert.Equal(SiteChange.KeptIndirect, patcher.Unlink([block[0]]).Outcomes[0].Change);
        patcher.Link(block[0], code.Five, LiveCode.Quiescent);
        Assert.Equal(5, LiveCode.Call(block));
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, Assert.Throws<PatchException>(() => patcher.Unlink([block[0]])).Diagnostic.Code);
    }

    [Fact]
    public void A_body_of_several_instructions_is_drained_before_its_site_is_linked()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 15, Start: 0, Forwarding: true));
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Outlined, LiveCode.Quiescent with { InPlace = true });
        // no executor is known
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, patcher.TryLink([new(block[0], code.Five)]).Diagnostics[0].Code);
        using Executor executor = code.Arena.RegisterExecutor();
        executor.Enter();
        var waiting = new SwitchOptions { Timeout = TimeSpan.FromMilliseconds(20) };
        bool timedOut = false;
        var other = new Thread(
            () => timedOut = patcher.TryLink([new(block[0], code.Five)], waiting).Diagnostics[0].Code == DiagnosticCodes.GraceTimeout);
        other.Start();
        other.Join();
        Assert.True(timedOut);
        Assert.Equal(3, LiveCode.Call(block));
        executor.Leave();
        patcher.Link(block[0], code.Five);
        Assert.Equal(5, LiveCode.Call(block));
    }

    [Fact]
    public void Executors_are_not_forwarded_to_a_slot_that_holds_a_trap()
    {
        // No native barrier: guards that spin are not to be had, so that only forwarding is left.
        using var platform = new FaultyPlatform { Kind = BarrierKind.Weak, HasNativeBarrier = false };
        using var code = new LiveCode(platform);
        CodeBlock block = code.EmitFunction(SiteWish.Straddling(forwarding: true));
        using LivePatcher patcher = code.Patcher();
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, patcher.TryLink([new(block[0], code.Five)]).Diagnostics[0].Code);
        patcher.Switch(code.Direct);
        Assert.Equal(1, patcher.Link(block[0], code.Five).Written);
        Assert.Equal(5, LiveCode.Call(block));
    }

    [Fact]
    public void Before_any_switch_an_unlinked_site_holds_what_it_was_emitted_with()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        byte[] original = block.ToArray();
        using LivePatcher patcher = code.Patcher();
        patcher.Link(block[0], code.Five);
        Assert.Equal(5, LiveCode.Call(block));
        patcher.Unlink([block[0]]);
        Assert.Equal(original, block.ToArray());
        Assert.Equal(LiveSiteState.Original, block[0].State);
    }

    [Fact]
    public void Sites_of_a_hosts_own_emitter_are_linked_and_get_their_own_bytes_back()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Inlined);
        using CodeReservation room = code.Arena.Allocate(100);
        VirtualAddress slot = code.Arena.SlotsOf(code.Layout).AddressOf(code.First);
        // xor eax,eax; push rax; ds call [slot]; pop rcx; ret
        byte[] function = [0x31, 0xc0, 0x50, 0x3e, 0xff, 0x15, 0, 0, 0, 0, 0x59, 0xc3];
        BitConverter.TryWriteBytes(function.AsSpan(6), (int)(slot - (room.Address + 10)));
        function.CopyTo(room.Span);
        CodeBlock block = room.Commit(
            function.Length, code.Layout, SiteTable.Create(new PatchSite(room.Address + 3, 0, 7, RegisterSet.Rax)));
        patcher.Link([new SiteLink(block[0], code.Five)]);
        Assert.Equal(5, LiveCode.Call(block));
        patcher.Revert([block[0]]);
        Assert.Equal(function, block.ToArray());
    }

    [Fact]
    public void Other_patchers_sites_are_refused()
    {
        using var code = new LiveCode();
        using var other = new LiveCode();
        CodeBlock foreign = other.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        Assert.Equal(DiagnosticCodes.BlockRetired, patcher.TryLink([new(foreign[0], code.Five)]).Diagnostics[0].Code);
        Assert.Equal(DiagnosticCodes.BlockRetired, patcher.TryApply(c => c.Revert(SiteScope.Blocks(foreign))).Diagnostics[0].Code);
        Assert.Empty(patcher.UnlinkFrom([foreign]).Outcomes); // links may lead into another arena; none does
    }

    [Fact]
    public void A_thread_inside_generated_code_can_not_link()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor();
        executor.Enter();
        Assert.Equal(DiagnosticCodes.InsideGeneratedCode, patcher.TryLink([new(block[0], code.Five)]).Diagnostics[0].Code);
        executor.Leave();
    }

    [Fact]
    public void Random_links_and_switches_end_in_the_bytes_that_were_asked_for()
    {
        using var code = new LiveCode(size: 4 << 20);
        var random = TestSeed.NewRandom();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 40)
            .Select(i => code.EmitFunction(new SiteWish(i % 3, random.Next(6, 16), Start: random.Next(0, 60), Forwarding: i % 2 == 0)))];
        LiveSite[] sites = [.. blocks.Select(static b => b[0]).Where(static s => s.Class != SiteClass.QuiescentOnly)];
        VirtualAddress[] targets = [.. Enumerable.Range(0, 10).Select(i => code.EmitHelper(100 + i))];
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Direct); // live: what can't be changed stays indirect
        (Backend Backend, long Result)[] backends = [(code.Direct, 2), (code.Inlined, 1), (code.Outlined, 3), (code.Nops, 0)];
        long bound = 2;
        var linked = new Dictionary<LiveSite, int>();
        for (int round = 0; round < 200; round++)
        {
            LiveSite[] some = [.. sites.Where(_ => random.Next(3) == 0)];
            switch (random.Next(4))
            {
                case 0:
                    bool take = random.Next(4) == 0;
                    (Backend backend, bound) = backends[random.Next(backends.Length)];
                    patcher.Switch(backend, new SwitchOptions { OverridesLinks = take });
                    if (take)
                    {
                        linked.Clear();
                    }

                    break;
                case 1:
                    patcher.Unlink(some);
                    Array.ForEach(some, s => linked.Remove(s));
                    break;
                default:
                    int[] chosen = [.. some.Select(_ => random.Next(targets.Length))];
                    patcher.Link([.. some.Select((s, i) => new SiteLink(s, targets[chosen[i]]))]);
                    for (int i = 0; i < some.Length; i++)
                    {
                        linked[some[i]] = chosen[i];
                    }

                    break;
            }

            foreach (LiveSite site in sites)
            {
                bool isLinked = linked.TryGetValue(site, out int target);
                Assert.Equal(isLinked ? 100 + target : bound, LiveCode.Call(site.Block));
                Assert.Equal(isLinked ? LiveSiteState.Linked : LiveSiteState.Bound, site.State);
            }
        }
    }
}
