using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

public sealed class SiteEmitterTests
{
    [Fact]
    public void Code_without_sites_needs_no_emitter_and_no_layout()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        Label second = a.CreateLabel();
        a.mov(eax, 7);
        a.ret();
        a.Label(ref second);
        a.mov(eax, 8);
        a.ret();
        long used = arena.Used;
        CodeBlock block = arena.Emit(a, out CodeLabels labels);
        Assert.Equal((7, 0), (LiveCode.Call(block), block.SiteCount));
        Assert.Equal(block.Address + 6, labels[second]); // b8 imm32, c3
        Assert.Equal("b8 07 00 00 00 c3 b8 08 00 00 00 c3", HexBytes.Format(block.ToArray()));
        Assert.Contains("mov eax, 7", arena.Dump(block), StringComparison.Ordinal);
        Assert.True(arena.Used > used);
        using Executor executor = arena.RegisterExecutor();
        arena.Retire(block);
        Assert.Equal(used, arena.Used);
        Assert.Equal(DiagnosticCodes.EmitterMisuse, Assert.Throws<PatchException>(() => arena.Emit(new Assembler(64))).Diagnostic.Code);
    }

    [Fact]
    public void Long_instructions_and_far_branches_find_room()
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new LiveCode();
        VirtualAddress far = LiveCode.EmitHelper(low, 3);
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        a.sub(rsp, 8);
        for (int i = 0; i < 50; i++)
        {
            a.mov(rax, 0x1122334455667788); // ten bytes
            a.call(far.Value); // becomes a call through a word of Iced's
            sites.Emit(a, code.First, 6, RegisterSet.Rax, SitePlacement.InsideAligned8);
        }

        a.add(rsp, 8);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        Assert.True(block.Length > a.Instructions.Count * 8);
        using LivePatcher patcher = code.Patcher(code.Outlined);
        Assert.All(Enumerable.Range(0, 50), i => Assert.Equal(SiteClass.Atomic8, block[i].Class));
        Assert.Equal(6, LiveCode.Call(block));
    }

    [Fact]
    public void Bytes_of_a_hosts_own_emitter_become_a_block_without_sites()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using CodeReservation room = code.Arena.Allocate(100);
        ((ReadOnlySpan<byte>)[0xb8, 9, 0, 0, 0, 0xc3]).CopyTo(room.Span); // mov eax,9; ret
        CodeBlock block = room.Commit(6);
        Assert.Equal(9, LiveCode.Call(block));
        Assert.Empty(patcher.Bind(block).Outcomes); // nothing to do, and no mistake
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Assert.Throws<PatchException>(() => room.Commit(6)).Diagnostic.Code);
    }

    [Fact]
    public void A_site_of_every_length_is_one_call_through_its_slot_that_ends_where_the_site_ends()
    {
        using var code = new LiveCode();
        for (int budget = 6; budget <= 15; budget++)
        {
            LiveSite site = code.EmitFunction(new SiteWish(1, budget))[0];
            byte[] bytes = site.ToArray();
            (ulong _, int length, string text) = Assert.Single(CapstoneReader.Disassemble(bytes, site.Address.Value, 64));
            Assert.Equal(budget, length);
            Assert.StartsWith("call", text.Replace("cs ", "", StringComparison.Ordinal), StringComparison.Ordinal);
            Assert.All(bytes[..(budget - 6)], static b => Assert.Equal(0x2e, b));
            Assert.Equal("ff 15", HexBytes.Format(bytes.AsSpan(budget - 6, 2)));
            VirtualAddress slot = site.Address + budget + BitConverter.ToInt32(bytes, budget - 4);
            Assert.Equal(code.Arena.SlotsOf(code.Layout).AddressOf(code.Layout[1]), slot);
        }
    }

    [Fact]
    public void A_site_of_a_jump_slot_jumps()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("leave", SlotKind.Jump)));
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        sites.Emit(a, layout[0]);
        CodeBlock block = arena.Emit(a, sites);
        Assert.Equal("ff 25", HexBytes.Format(block.ToArray().AsSpan(0, 2)));
    }

    [Fact]
    public void Every_start_in_a_line_can_be_asked_for_and_every_class_comes_of_it()
    {
        using var code = new LiveCode(atomic16: true, size: 8 << 20);
        for (int start = 0; start < 64; start++)
        {
            for (int budget = 6; budget <= 15; budget++)
            {
                LiveSite site = code.EmitFunction(new SiteWish(0, budget, Start: start))[0];
                Assert.Equal(start, (int)(site.Address.Value % 64));
                Assert.Equal(SiteRecord.Classify((ulong)start, budget, true, true, false), site.Class);
            }
        }
    }

    [Theory]
    [InlineData(SitePlacement.InsideAligned8)]
    [InlineData(SitePlacement.InsideAligned16)]
    [InlineData(SitePlacement.WithinCacheLine)]
    public void Placement_holds_among_jumps_that_change_their_length_and_labels_follow(SitePlacement placement)
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Inlined);
        Random random = TestSeed.NewRandom();
        for (int round = 0; round < 20; round++)
        {
            var a = new Assembler(64);
            var sites = new SiteEmitter(code.Layout);
            Label end = a.CreateLabel();
            Label back = a.CreateLabel();
            a.sub(rsp, 8);
            a.xor(ecx, ecx);
            a.Label(ref back);
            for (int i = 0; i < 30; i++)
            {
                a.cmp(ecx, 1000 + i);
                a.je(end); // near or short, as the padding decides
                a.nop(random.Next(1, 9));
                sites.Emit(a, code.First, random.Next(6, 9), RegisterSet.Rax, placement);
            }

            a.inc(ecx);
            a.cmp(ecx, 3);
            a.jl(back);
            a.Label(ref end);
            a.mov(eax, ecx);
            a.add(rsp, 8);
            a.ret();
            CodeBlock block = code.Arena.Emit(a, sites, out CodeLabels labels);
            for (int i = 0; i < block.SiteCount; i++)
            {
                Assert.True(EmittedSite.Holds(placement, block[i].Address, block[i].Budget));
            }

            CapstoneReader.AssertWholeInstructions(block.ToArray(), block.Address.Value, 64, $"round {round}");
            Assert.Equal("89 c8 48 83 c4 08 c3", HexBytes.Format(block.ToArray().AsSpan((int)(labels[end] - block.Address))));
            Assert.Equal(3, LiveCode.Call(block));
            patcher.Switch(code.Direct);
            Assert.Equal(3, LiveCode.Call(block));
        }
    }

    [Fact]
    public void A_jump_to_a_site_reaches_the_site_and_not_its_padding()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Inlined);
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        Label at = a.CreateLabel();
        a.sub(rsp, 8);
        a.jmp(at);
        a.Label(ref at);
        SiteTicket ticket = sites.Emit(a, code.First, 8, RegisterSet.Rax, SitePlacement.InsideAligned8);
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites, out CodeLabels labels);
        Assert.Equal(block[ticket].Address, labels[at]);
        Assert.Equal(1, LiveCode.Call(block));
    }

    [Fact]
    public void Forwarding_islands_do_the_operation_through_the_slot_and_come_back_to_the_sites_end()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Straddling(slot: 2, budget: 9, forwarding: true));
        LiveSite site = block[0];
        Assert.True(site.HasForwarding);
        VirtualAddress island = site.Address + 2 + site.Record.Forward;
        byte[] bytes = code.Arena.Memory.Span(island, EmittedSite.IslandLength).ToArray();
        Assert.Equal("ff 15", HexBytes.Format(bytes.AsSpan(0, 2)));
        Assert.Equal(code.Arena.SlotsOf(code.Layout).AddressOf(code.Layout[2]), island + 6 + BitConverter.ToInt32(bytes, 2));
        Assert.Equal(0xe9, bytes[6]);
        Assert.Equal(site.Address + 9, island + 11 + BitConverter.ToInt32(bytes, 7));
    }

    [Fact]
    public void A_forwarding_island_that_comes_to_lie_too_far_away_is_not_used()
    {
        using var code = new LiveCode();
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        sites.Emit(a, code.First, forwarding: true);
        for (int i = 0; i < 20; i++)
        {
            a.nop(8);
        }

        a.ret();
        Assert.False(code.Arena.Emit(a, sites)[0].HasForwarding);
    }

    [Fact]
    public void Emitters_and_assemblers_that_do_not_belong_together_are_refused()
    {
        using var code = new LiveCode();
        var a = new Assembler(64);
        var other = new Assembler(64);
        other.ret();
        var sites = new SiteEmitter(code.Layout);
        sites.Emit(a, code.First);
        Assert.Equal(DiagnosticCodes.EmitterMisuse, Code(() => sites.Emit(other, code.First)));
        Assert.Equal(DiagnosticCodes.EmitterMisuse, Code(() => code.Arena.Emit(other, sites)));
        a.Reset();
        a.ret();
        Assert.NotNull(code.Arena.Emit(a, new SiteEmitter(code.Layout)));
        a.Reset();
        Assert.Equal(DiagnosticCodes.EmitterMisuse, Code(() => code.Arena.Emit(a, new SiteEmitter(code.Layout)))); // nothing in it
        Assert.Equal(DiagnosticCodes.EmitterMisuse, Code(() => new SiteEmitter(code.Layout).Emit(new Assembler(32), code.First)));
        var elsewhere = OpsLayout.Create(b => b.Table("t", t => t.Slot("first")));
        Assert.Equal(DiagnosticCodes.WrongLayout, Code(() => new SiteEmitter(code.Layout).Emit(a, elsewhere[0])));
        Assert.Throws<ArgumentOutOfRangeException>(() => new SiteEmitter(code.Layout).Emit(a, code.First, 5));
        Assert.Throws<ArgumentOutOfRangeException>(
            () => new SiteEmitter(code.Layout).Emit(a, code.First, 9, placement: SitePlacement.InsideAligned8));
    }

    [Fact]
    public void Code_that_does_not_assemble_takes_nothing_from_the_arena()
    {
        using var code = new LiveCode();
        _ = code.Arena.SlotsOf(code.Layout);
        long used = code.Arena.Used;
        var a = new Assembler(64);
        a.jmp(a.CreateLabel()); // placed nowhere
        Assert.Equal(DiagnosticCodes.EmitterMisuse, Code(() => code.Arena.Emit(a, new SiteEmitter(code.Layout))));
        Assert.Equal(used, code.Arena.Used);
    }

    private static string Code(Action action) => Assert.Throws<PatchException>(action).Diagnostic.Code;
}
