using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

public sealed class LiveSwitchTests
{
    [Fact]
    public void Every_site_does_what_its_backend_says_wherever_it_lies()
    {
        using var code = new LiveCode(size: 8 << 20);
        using LivePatcher patcher = code.Patcher();
        var blocks = new List<CodeBlock>();
        for (int start = 0; start < 64; start++)
        {
            for (int budget = 6; budget <= 15; budget++)
            {
                blocks.Add(code.EmitFunction(new SiteWish(start % 3, budget, Start: start)));
            }
        }

        byte[] original = LiveCode.Snapshot(blocks);
        foreach ((Backend backend, long result) in ((Backend, long)[])[
            (code.Direct, 2), (code.Inlined, 1), (code.Outlined, 3), (code.Nops, 0), (code.Direct, 2)])
        {
            ApplyResult done = patcher.Switch(backend);
            Assert.Equal(ApplyStatus.Applied, done.Status);
            Assert.Equal(blocks.Count, done.Count);
            Assert.Equal(blocks.Count, done.Written + done.KeptIndirect);
            Assert.All(blocks, b => Assert.Equal(result, LiveCode.Call(b)));
            foreach (CodeBlock block in blocks)
            {
                LiveSite site = block[0];
                (ulong _, int length, string _) = Assert.Single(CapstoneReader.Disassemble(site.ToArray(), site.Address.Value, 64));
                Assert.Equal(site.Budget, length);
                Assert.Equal(LiveSiteState.Bound, site.State);
            }
        }

        patcher.Revert();
        Assert.Equal(original, LiveCode.Snapshot(blocks));
        Assert.All(blocks, static b => Assert.Equal(LiveSiteState.Original, b[0].State));
        Assert.All(blocks, static b => Assert.Equal(2, LiveCode.Call(b))); // through the slots, which stay
    }

    [Fact]
    public void The_second_switch_to_a_backend_writes_nothing_and_runs_no_barrier()
    {
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned(), SiteWish.Straddling());
        using LivePatcher patcher = code.Patcher();
        Assert.Equal(2, patcher.Switch(code.Inlined).Written);
        ApplyResult again = patcher.Switch(code.Inlined);
        Assert.Equal((0, 0, 0), (again.Written, again.Barriers, again.SlotsWritten));
        Assert.Equal(SiteChange.AlreadyThere, again.Outcomes[0].Change);
    }

    [Fact]
    public void One_store_takes_one_barrier_and_a_guard_three_however_many_sites()
    {
        using var code = new LiveCode();
        for (int i = 0; i < 20; i++)
        {
            code.EmitFunction(SiteWish.Aligned(0), SiteWish.Straddling(1), new SiteWish(2, 15, SitePlacement.InsideAligned16));
        }

        using LivePatcher patcher = code.Patcher();
        Assert.Equal(1, patcher.Switch(code.First, code.Inlined).Barriers);
        Assert.Equal(3, patcher.Switch(code.Layout[1], code.Inlined).Barriers);
        Assert.Equal(3, patcher.Switch(code.Direct).Barriers);
    }

    [Fact]
    public void One_slot_can_be_switched_and_the_others_stay()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 3).Select(i => code.EmitFunction(new SiteWish(i)))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        Assert.Same(code.Direct, patcher.Current);
        patcher.Switch(code.Layout[1], code.Inlined);
        Assert.Equal([2, 1, 2], blocks.Select(static b => LiveCode.Call(b)));
        Assert.Null(patcher.Current);
    }

    [Fact]
    public void Some_sites_can_be_switched_and_reverted_and_the_slots_stay()
    {
        using var code = new LiveCode();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 3).Select(_ => code.EmitFunction(new SiteWish(0)))];
        using LivePatcher patcher = code.Patcher(code.Direct);
        ApplyResult result = patcher.Switch([blocks[1][0], blocks[2][0], blocks[1][0]], code.Inlined);
        Assert.Equal((2, 2, 0), (result.Count, result.Written, result.SlotsWritten));
        Assert.Equal([2, 1, 1], blocks.Select(static b => LiveCode.Call(b)));
        patcher.Revert([blocks[1][0]]);
        Assert.Equal([2, 2, 1], blocks.Select(static b => LiveCode.Call(b)));
        Assert.Equal(LiveForm.Original, blocks[1][0].Form);
    }

    [Fact]
    public void A_site_that_can_not_be_changed_live_is_not_said_to_follow_a_slot_that_stays()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 6, Start: 63));
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Direct);
        Assert.Equal(SiteChange.KeptIndirect, patcher.Switch([block[0]], code.Direct).Outcomes[0].Change);
        PatchException e = Assert.Throws<PatchException>(() => patcher.Switch([block[0]], code.Inlined));
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, e.Diagnostic.Code);
        Assert.Equal(1, patcher.Switch([block[0]], code.Inlined, LiveCode.Quiescent).Written);
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void New_blocks_get_what_their_slots_are_switched_to()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher();
        CodeBlock before = code.EmitFunction(new SiteWish(0));
        Assert.Empty(patcher.Bind(before).Outcomes); // nothing is bound yet
        patcher.Switch(code.Inlined);
        CodeBlock block = code.EmitFunction(new SiteWish(0), new SiteWish(1));
        Assert.Equal(1, LiveCode.Call(block)); // indirect, and right
        Assert.Equal(LiveForm.Original, block[0].Form);
        Assert.Equal(2, patcher.Bind(block).Written);
        Assert.Equal(LiveForm.OneInstruction, block[0].Form);
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void Slots_always_hold_a_function_even_where_the_operation_has_none()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Outlined);
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        Assert.Equal(LiveForm.Original, block[0].Form);
        Assert.Equal(3, LiveCode.Call(block));
        patcher.Switch(code.Layout[0], code.Nops);
        Assert.Equal(0, LiveCode.Call(code.EmitFunction(new SiteWish(0))));
    }

    [Fact]
    public void Switching_to_and_fro_makes_each_island_once()
    {
        using var code = new LiveCode();
        code.EmitFunction(new SiteWish(0), new SiteWish(1));
        using LivePatcher patcher = code.Patcher(code.Outlined);
        long used = code.Arena.Used;
        int islands = code.Arena.Islands.Count;
        Assert.Equal(2, islands);
        for (int i = 0; i < 100; i++)
        {
            patcher.Switch(code.Direct);

            // The same bodies of another backend object: what counts is the content.
            patcher.Switch(code.Outlined.Derive($"again {i}", b => b.Inline("t.first", LiveCode.AddThree)));
        }

        Assert.Equal(islands, code.Arena.Islands.Count);
        Assert.Equal(used, code.Arena.Used);
    }

    [Fact]
    public void A_target_that_destroys_too_much_is_called_through_a_thunk_in_slot_and_site()
    {
        using var code = new LiveCode();
        var a = new Assembler(64);
        a.mov(ecx, 99);
        a.mov(eax, 2);
        a.ret();
        VirtualAddress wild = code.Arena.Emit(a, new SiteEmitter(code.Layout)).Address;
        Backend backend = code.Direct.Derive("wild", b => b.Call("t.first", wild, "wild", RegisterSet.Rax | RegisterSet.Rcx));
        a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        a.sub(rsp, 8);
        a.mov(ecx, 40);
        sites.Emit(a, code.First, 6, RegisterSet.Rax);
        a.add(eax, ecx); // 42 if rcx was kept
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        using LivePatcher patcher = code.Patcher();
        ApplyResult result = patcher.Switch(backend);
        Assert.Equal(PatchAction.ThunkCall, result.Outcomes[0].Action);
        Assert.Equal(42, LiveCode.Call(block));
        patcher.Revert();
        Assert.Equal(42, LiveCode.Call(block));
        Assert.NotEqual(wild, code.Arena.SlotsOf(code.Layout).FunctionOf(code.First));
    }

    [Fact]
    public void A_site_that_allows_less_than_the_others_narrows_its_slots_function()
    {
        using var code = new LiveCode();
        Backend backend = code.Direct.Derive("wild", b => b.Call("t.first", code.Two, "two", RegisterSet.Rax | RegisterSet.Rcx));
        code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax | RegisterSet.Rcx));
        using LivePatcher patcher = code.Patcher(backend);
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        Assert.Equal(code.Two, slots.FunctionOf(code.First));
        CodeBlock block = code.EmitFunction(new SiteWish(0, Clobbers: RegisterSet.Rax));
        Assert.NotEqual(code.Two, slots.FunctionOf(code.First));
        Assert.Equal(2, LiveCode.Call(block));
    }

    [Fact]
    public void What_can_not_be_saved_around_a_call_is_refused_before_anything_is_written()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher(code.Inlined);
        byte[] before = block.ToArray();
        ApplyResult result = patcher.TrySwitch(
            code.Direct.Derive("vectors", b => b.Call("t.first", code.Two, "two", RegisterSet.Rax | RegisterSet.Vector)));
        Assert.Equal(ApplyStatus.Refused, result.Status);
        Assert.Equal(DiagnosticCodes.SlotFunction, result.Diagnostics[0].Code);
        Assert.Equal(before, block.ToArray());
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void Missing_operations_trap_and_are_warned_of()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher();
        ApplyResult result = patcher.Switch(Backend.Create("empty", code.Layout, static _ => { }));
        Assert.Equal(DiagnosticCodes.MissingOperation, Assert.Single(result.Diagnostics).Code);
        Assert.Equal("2e 2e 2e 2e 0f 0b", HexBytes.Format(block[0].ToArray())); // cs ud2
    }

    [Fact]
    public void Bodies_that_lean_on_the_stack_pointer_need_a_function_for_their_slot()
    {
        using var code = new LiveCode();
        code.EmitFunction(new SiteWish(0));
        using LivePatcher patcher = code.Patcher(code.Direct);
        ApplyResult result = patcher.TrySwitch(
            code.Direct.Derive("stack", b => b.Inline("t.first", static a => a.mov(rax, __qword_ptr[rsp + 8]))));
        Assert.Equal(ApplyStatus.Refused, result.Status); // nobody goes through the slot now, but the next block would
        Assert.Equal(DiagnosticCodes.SlotFunction, result.Diagnostics[0].Code);
        Assert.Equal(2, LiveCode.Call(code.EmitFunction(new SiteWish(0))));
    }

    [Fact]
    public void Bodies_refer_to_data_relative_to_where_they_are_put()
    {
        using var code = new LiveCode();
        using CodeReservation data = code.Arena.Allocate(16);
        data.Span[0] = 77;
        CodeBlock table = data.Commit(8, code.Layout, SiteTable.Empty);
        var load = Instruction.Create(Code.Mov_r32_rm32, Register.EAX, new MemoryOperand(Register.RIP, (long)table.Address.Value));
        CodeBlock inline = code.EmitFunction(new SiteWish(0, 12));
        CodeBlock island = code.EmitFunction(new SiteWish(1, 6));
        using LivePatcher patcher = code.Patcher();
        patcher.Switch(code.Direct.Derive("data", b => b
            .Inline("t.first", a => a.AddInstruction(load))
            .Inline("t.second", a =>
            {
                a.AddInstruction(load);
                a.lea(eax, __[rax + 1]);
            })));
        Assert.Equal(LiveForm.OneInstruction, inline[0].Form);
        Assert.Equal(77, LiveCode.Call(inline));
        Assert.Equal(LiveForm.Island, island[0].Form);
        Assert.Equal(78, LiveCode.Call(island));
    }

    [Fact]
    public void Sites_longer_than_an_instruction_change_at_quiescence_and_stay_indirect_live()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(new SiteWish(0, 16), new SiteWish(1, 40));
        byte[] original = block.ToArray();
        using LivePatcher patcher = code.Patcher();
        Assert.Equal(SiteClass.QuiescentOnly, block[0].Class);
        ApplyResult live = patcher.Switch(code.Inlined);
        Assert.Equal(2, live.KeptIndirect);
        Assert.Equal(1, LiveCode.Call(block));
        Assert.Equal(original, block.ToArray());
        Assert.Equal(2, patcher.Switch(code.Outlined, LiveCode.Quiescent).Written);
        Assert.Equal(6, LiveCode.Call(block));
        ApplyResult refused = patcher.TrySwitch(code.Direct);
        Assert.Equal(DiagnosticCodes.NeedsQuiescence, refused.Diagnostics[0].Code);
        Assert.Equal(6, LiveCode.Call(block));
        patcher.Revert(LiveCode.Quiescent);
        Assert.Equal(original, block.ToArray());
    }

    [Fact]
    public void Random_switches_always_end_in_the_bytes_of_the_last_one()
    {
        using var code = new LiveCode();
        var random = TestSeed.NewRandom();
        CodeBlock[] blocks = [.. Enumerable.Range(0, 40)
            .Select(i => code.EmitFunction(new SiteWish(i % 3, random.Next(6, 16), Start: random.Next(64), Forwarding: i % 2 == 0)))];
        byte[] original = LiveCode.Snapshot(blocks);
        using LivePatcher patcher = code.Patcher();
        Backend[] backends = [code.Direct, code.Inlined, code.Outlined, code.Nops];
        var bytes = new Dictionary<Backend, byte[]>();
        for (int i = 0; i < 200; i++)
        {
            Backend backend = backends[random.Next(backends.Length)];
            patcher.Switch(code.Layout[random.Next(3)], backends[random.Next(backends.Length)]);
            patcher.Switch(blocks.Select(static b => b[0]).Where(s => s.Class != SiteClass.QuiescentOnly && random.Next(3) == 0).ToList(),
                backends[random.Next(backends.Length)]);
            patcher.Switch(backend);
            byte[] now = LiveCode.Snapshot(blocks);
            bytes.TryAdd(backend, now);
            Assert.Equal(bytes[backend], now);
        }

        patcher.Revert();
        Assert.Equal(original, LiveCode.Snapshot(blocks));
    }
}
