using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>Sites and assemblers that do not belong together, and code that holds sites of several emitters.</summary>
public sealed unsafe class EmitterMisuseTests
{
    private static readonly OpsLayout s_one = OpsLayout.Create(
        static b => b.Table("one", static t => t.Slot("op").Slot("other"), CallConvention.SysV));
    private static readonly OpsLayout s_two = OpsLayout.Create(static b => b.Table("two", static t => t.Slot("op"), CallConvention.SysV));

    [Fact]
    public void A_reset_assembler_with_the_old_emitter_is_refused()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var sites = new SiteEmitter(s_one);
        Site(a, sites);
        a.Reset();
        a.nop();
        a.mov(eax, 1);
        a.nop();
        a.ret();
        Assert.Contains("where it was emitted", Misuse(() => arena.Emit(a, sites)).Message, StringComparison.Ordinal);

        // As many bytes of the host's own, and even a site of another emitter, are no site of this one.
        a.Reset();
        a.sub(rsp, 8);
        a.db(1, 2, 3, 4, 5, 6);
        a.ret();
        Misuse(() => arena.Emit(a, sites));
        a.Reset();
        Site(a, new SiteEmitter(s_one));
        Misuse(() => arena.Emit(a, sites));
        sites.Clear();
        a.Reset();
        Site(a, sites);
        Assert.Equal(1, arena.Emit(a, sites).SiteCount);
    }

    [Fact]
    public void An_assembler_that_got_shorter_is_refused()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var sites = new SiteEmitter(s_one);
        Site(a, sites);
        a.Reset();
        a.ret();
        Misuse(() => arena.Emit(a, sites));
    }

    [Fact]
    public void A_forgotten_emitter_is_refused()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var sites = new SiteEmitter(s_one);
        var forgotten = new SiteEmitter(s_one);
        Site(a, sites);
        forgotten.Emit(a, s_one[1], forwarding: true);
        a.ret();
        Assert.Contains("no emitter claims", Misuse(() => arena.Emit(a, sites)).Message, StringComparison.Ordinal);
        Misuse(() => arena.Emit(a));
        Misuse(() => arena.Emit(a, forgotten));
        forgotten.EmitForwarding(a);
        Misuse(() => arena.Emit(a, sites));
        Assert.Equal(2, arena.Emit(a, [sites, forgotten], out _).Sum(static b => b.SiteCount));
    }

    [Fact]
    public void An_island_placeholder_nobody_claims_is_refused()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var sites = new SiteEmitter(s_one);
        sites.Emit(a, s_one[0], forwarding: true);
        a.ret();
        sites.EmitForwarding(a);
        arena.Emit(a, sites);

        // The same code once more: its sites are of the block that was made.
        Misuse(() => arena.Emit(a, sites));
        Misuse(() => arena.Emit(a));
    }

    [Fact]
    public void The_same_emitter_twice_is_refused()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var sites = new SiteEmitter(s_one);
        Site(a, sites);
        Misuse(() => arena.Emit(a, [sites, sites], out _));
        Assert.Equal(1, sites.Count);
    }

    [Theory]
    [InlineData(6)]
    [InlineData(15)]
    [InlineData(40)]
    public void A_placeholder_traps_where_it_is_run(int budget)
    {
        var a = new Assembler(64);
        new SiteEmitter(s_one).Emit(a, s_one[0], budget);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), 0);
        byte[] bytes = stream.ToArray();
        Assert.Equal(budget, bytes.Length);
        Assert.Equal([0x0f, 0x0b], bytes[..2]); // ud2
        Assert.All(bytes[6..], static b => Assert.Equal(0xcc, b)); // int3
    }

    [Fact]
    public void A_hosts_own_data_is_no_placeholder()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var sites = new SiteEmitter(s_one);
        Site(a, sites);
        a.db(0x0f, 0x0b, 0, 0, 0, 0);
        a.db(0x0f, 0x0b);
        a.db(0x0f, 0x0b, 0xff, 0xff, 0xff, 0xff, 0xcc);
        Assert.Equal(1, arena.Emit(a, sites).SiteCount);
    }

    [Fact]
    public void Two_layouts_in_one_block_are_switched_each_by_its_own_patcher()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var first = new SiteEmitter(s_one);
        var second = new SiteEmitter(s_two);
        a.sub(rsp, 8);
        a.xor(eax, eax);
        SiteTicket one = first.Emit(a, s_one[0], forwarding: true);
        SiteTicket two = second.Emit(a, s_two[0], forwarding: true);
        SiteTicket other = first.Emit(a, s_one[1]);
        a.add(rsp, 8);
        a.ret();
        second.EmitForwarding(a);
        IReadOnlyList<CodeBlock> blocks = arena.Emit(a, [first, second], out _);
        Assert.Equal([2, 1], blocks.Select(static b => b.SiteCount));
        Assert.Equal(blocks[0].Address, blocks[1].Address);
        Assert.True(blocks[0][one].Address < blocks[1][two].Address);
        Assert.True(blocks[1][two].Address < blocks[0][other].Address);
        using var onePatcher = new LivePatcher(arena, s_one);
        using var twoPatcher = new LivePatcher(arena, s_two);
        Action<Assembler> Add(int amount) => b => b.lea(rax, __[rax + amount]);
        onePatcher.Switch(Backend.Create("a", s_one, b => b.Inline("one.op", Add(1)).Inline("one.other", Add(10))), LiveCode.Quiescent);
        twoPatcher.Switch(Backend.Create("b", s_two, b => b.Inline("two.op", Add(100))), LiveCode.Quiescent);
        Assert.Equal(111, LiveCode.Call(blocks[0]));
        twoPatcher.Switch(Backend.Create("c", s_two, b => b.Inline("two.op", Add(200))), LiveCode.Quiescent);
        Assert.Equal(211, LiveCode.Call(blocks[1]));
        foreach (CodeBlock block in blocks)
        {
            for (int i = 0; i < block.SiteCount; i++)
            {
                Assert.True(arena.TryFindSite(block[i].Address, out LiveSite found));
                Assert.Equal(block[i], found);
            }
        }

        using Executor executor = arena.RegisterExecutor();
        long used = arena.Used;
        arena.Retire(blocks[1]);
        Assert.True(blocks[0].IsRetired);
        Assert.True(arena.Used < used);
        Assert.Empty(arena.Blocks);
        Assert.False(arena.TryFindSite(blocks[0].Address, out _));
    }

    [Theory]
    [InlineData(0x1234)]
    [InlineData(0xffff)]
    [InlineData(0)]
    public void A_small_address_is_told_from_a_missing_label(ulong address)
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        a.nop();
        a.jmp(address);
        PatchDiagnostic error = Misuse(() => arena.Emit(a));
        Assert.Contains("below 64 KiB", error.Message, StringComparison.Ordinal);
        Assert.Equal(address, error.Address!.Value.Value);
    }

    [Fact]
    public void A_label_that_is_not_placed_is_named_as_one()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        _ = a.CreateLabel();
        Label nowhere = a.CreateLabel();
        a.jmp(nowhere);
        Assert.Contains("used but not placed", Misuse(() => arena.Emit(a)).Message, StringComparison.Ordinal);
    }

    private static void Site(Assembler a, SiteEmitter sites)
    {
        a.sub(rsp, 8);
        sites.Emit(a, s_one[0]);
        a.add(rsp, 8);
        a.ret();
    }

    private static PatchDiagnostic Misuse(Action action)
    {
        PatchDiagnostic error = Assert.Throws<PatchException>(action).Diagnostic;
        Assert.Equal(DiagnosticCodes.EmitterMisuse, error.Code);
        return error;
    }
}
