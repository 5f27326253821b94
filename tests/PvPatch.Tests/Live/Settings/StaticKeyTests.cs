using Iced.Intel;
using PvPatch.Live;
using PvPatch.Plans;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Keys and branches: what their sites hold for every value, before, with and after the batch; what is refused.</summary>
public sealed class StaticKeyTests : IDisposable
{
    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);
    private readonly LivePatcher _live;

    public StaticKeyTests() => _live = new LivePatcher(_arena);

    public void Dispose()
    {
        _live.Dispose();
        _arena.Dispose();
    }

    [Theory]
    [InlineData(BranchHint.Unlikely, 2, "66 90", "nop")]
    [InlineData(BranchHint.Unlikely, 5, "0f 1f 44 00 00", "nop dword ptr [rax + rax]")]
    [InlineData(BranchHint.Likely, 2, null, "jmp")]
    [InlineData(BranchHint.Likely, 5, null, "jmp")]
    public void A_site_is_a_nop_or_a_jump_by_its_key_and_hint(BranchHint hint, int length, string? bytesWhileOff, string whileOff)
    {
        var key = new StaticKey("key");
        CodeBlock block = SettingCode.Emit(_arena, key, hint, length);
        LiveSite site = block[0];
        int jumps = hint == BranchHint.Likely ? 1 : 0;
        Assert.Equal((length, SiteClass.Atomic8, "key"), (site.Budget, site.Class, site.Name));
        Assert.Null(site.Slot);
        Assert.Same(key, Assert.Single(site.Settings));
        byte[] before = site.ToArray();
        if (bytesWhileOff is not null)
        {
            Assert.Equal(bytesWhileOff, HexBytes.Format(before));
        }

        (ulong _, int size, string text) = Assert.Single(CapstoneReader.Disassemble(before, site.Address.Value, 64));
        Assert.Equal(length, size);
        Assert.StartsWith(whileOff, text, StringComparison.Ordinal);
        Assert.Equal(jumps, SettingCode.Run(block));

        ApplyResult result = _live.Enable(key);
        Assert.Equal((1, 1, true), (result.Written, key.Count, key.IsEnabled));
        Assert.Equal(1 - jumps, SettingCode.Run(block));
        Assert.Equal(jumps == 0 ? PatchAction.Jump : PatchAction.Nop, block[0].Action);
        Assert.Equal(jumps == 0 ? site.End + 3 : null, block[0].Target); // behind xor eax,eax and ret

        result = _live.Disable(key);
        Assert.Equal((1, 0, false), (result.Written, key.Count, key.IsEnabled));
        Assert.Equal(before, site.ToArray());
        Assert.Equal(jumps, SettingCode.Run(block));
    }

    /// <summary>By itself, and in a batch that goes over all blocks, this one among them, before and behind.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void A_site_of_a_key_can_not_be_linked(int place)
    {
        using var code = new LiveCode();
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        Label end = a.CreateLabel();
        sites.Branch(a, new StaticKey("key"), end);
        sites.Emit(a, code.First);
        a.Label(ref end);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        using LivePatcher patcher = code.Patcher(code.Direct);
        byte[] before = block.ToArray();
        SiteLink link = new(block[0], code.Five);
        Assert.False(patcher.TryApply(
            c => _ = place == 0 ? c.Link(link) : place == 1 ? c.Link(link).Use(code.Inlined) : c.Use(code.Inlined).Link(link), null,
            out ApplyResult result));
        Assert.Contains(result.Diagnostics, d => (d.Code, d.Address) == (DiagnosticCodes.SiteOfSetting, block[0].Address));
        Assert.Equal(before, block.ToArray());
    }

    [Fact]
    public void A_key_is_on_until_it_was_disabled_as_often_as_enabled()
    {
        var key = new StaticKey("key");
        CodeBlock block = SettingCode.Emit(_arena, key);
        Assert.Equal(1, _live.Enable(key).Written);
        Assert.Equal(0, _live.Enable(key).Written);
        Assert.Equal(0, _live.Disable(key).Written);
        Assert.Equal((1, 1), (key.Count, SettingCode.Run(block)));
        Assert.Equal(1, _live.Disable(key).Written);
        Assert.Equal(0, SettingCode.Run(block));

        Assert.False(_live.TryDisable(key, null, out ApplyResult refused));
        Assert.Equal((ApplyStatus.Refused, "PV8038"), (refused.Status, refused.Diagnostics[0].Code));
        Assert.False(_live.TryApply(c => c.Enable(key).Disable(key).Disable(key).Enable(key), null, out refused));
        Assert.Equal("PV8038", refused.Diagnostics[0].Code);
        Assert.Equal((0, 0), (key.Count, SettingCode.Run(block)));
        Assert.True(_live.TryApply(c => c.Enable(key).Enable(key).Disable(key), null, out _));
        Assert.Equal((1, 1), (key.Count, SettingCode.Run(block)));
    }

    [Fact]
    public void Code_emitted_after_a_batch_does_what_the_key_says_then()
    {
        var key = new StaticKey("key", enabled: true);
        CodeBlock first = SettingCode.Emit(_arena, key);
        Assert.Equal(1, SettingCode.Run(first));
        _live.Enable(key);
        CodeBlock second = SettingCode.Emit(_arena, key);
        Assert.Equal(1, SettingCode.Run(second));
        _live.Apply(c => c.Disable(key).Disable(key));
        Assert.Equal((0, 0, 0), (SettingCode.Run(first), SettingCode.Run(second), SettingCode.Run(SettingCode.Emit(_arena, key))));
    }

    [Fact]
    public void A_neutral_site_jumps_either_way()
    {
        var key = new StaticKey("key");
        CodeBlock block = SettingCode.Emit(_arena, (s, a, l) => s.Branch(a, key, whenOff: l[0], whenOn: l[1]), ways: 2);
        Assert.Equal(1, SettingCode.Run(block));
        _live.Enable(key);
        Assert.Equal(2, SettingCode.Run(block));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public void Several_keys_make_one_jump(int count)
    {
        StaticKey[] keys = [.. Enumerable.Range(0, count).Select(static i => new StaticKey($"k{i}"))];
        CodeBlock block = SettingCode.Emit(_arena, (s, a, l) => s.Branch(a, keys, l), ways: 1 << count, falls: 1);
        var random = new Random(count);
        for (int round = 0; round < 100; round++)
        {
            int wanted = random.Next(1 << count);
            ApplyResult result = _live.Apply(c =>
            {
                for (int i = 0; i < count; i++)
                {
                    if ((wanted >> i & 1) != 0 && !keys[i].IsEnabled)
                    {
                        c.Enable(keys[i]);
                    }
                    else if ((wanted >> i & 1) == 0 && keys[i].IsEnabled)
                    {
                        c.Disable(keys[i]);
                    }
                }
            });
            Assert.True(result.Count <= 1, "a site is planned once");
            Assert.Equal(wanted == 0 ? 0 : wanted + 1, SettingCode.Run(block));
        }
    }

    [Fact]
    public void A_branch_of_many_ways_is_one_jump()
    {
        const int Ways = 8;
        var branch = new MultiBranch("mode", Ways);
        CodeBlock block = SettingCode.Emit(_arena, (s, a, l) => s.Branch(a, branch, l), Ways, falls: 1UL << 3);
        Assert.Equal((null, 0), (branch.Way, SettingCode.Run(block)));
        for (int way = 0; way < Ways; way++)
        {
            Assert.Equal(1, _live.Apply(c => c.Set(branch, way)).Count);
            Assert.Equal((way, way == 3 ? 0 : way + 1), (branch.Way, SettingCode.Run(block)));
        }

        _live.Apply(c => c.Set(branch, 2).Set(branch, null));
        Assert.Equal((null, 0), (branch.Way, SettingCode.Run(block)));
        Assert.Throws<ArgumentOutOfRangeException>(() => _live.Apply(c => c.Set(branch, Ways)));
        Assert.Throws<ArgumentOutOfRangeException>(() => _live.Apply(c => c.Set(branch, -1)));
    }

    [Fact]
    public void Keys_branches_and_a_backend_are_one_batch_with_one_barrier()
    {
        using var code = new LiveCode();
        using LivePatcher live = code.Patcher(code.Direct);
        var key = new StaticKey("key");
        var branch = new MultiBranch("mode", 2);
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        Label slow = a.CreateLabel();
        Label other = a.CreateLabel();
        a.sub(rsp, 8);
        SiteTicket operation = sites.Emit(a, code.First, clobbers: Machine.RegisterSet.Rax, placement: SitePlacement.InsideAligned8);
        a.add(rsp, 8);
        SiteTicket first = sites.Branch(a, key, slow);
        SiteTicket second = sites.Branch(a, branch, [default, other], length: 2);
        a.ret();
        a.Label(ref slow);
        a.add(eax, 10);
        a.ret();
        a.Label(ref other);
        a.add(eax, 20);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        live.Bind(block);
        Assert.Equal(2, SettingCode.Run(block));

        LivePlan plan = live.Plan(c => c.Use(code.Inlined).Set(branch, 1).Enable(key));
        Assert.Equal(3, plan.Writes);
        Assert.Equal(["key", "mode", "t.first"], plan.Plan.Select(static s => s.Label).Distinct().Where(static l => !l.StartsWith("t.s", StringComparison.Ordinal) && !l.StartsWith("t.t", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        Assert.Equal((2, 0, (int?)null), (SettingCode.Run(block), key.Count, branch.Way));
        ApplyResult result = live.Apply(plan);
        Assert.Equal((3, 1), (result.Written, result.Barriers));
        Assert.Equal((1, 1), (key.Count, branch.Way));
        Assert.Equal(11, SettingCode.Run(block));
        Assert.Equal([PatchAction.Inline, PatchAction.Jump, PatchAction.Jump],
            new[] { operation, first, second }.Select(t => block[t].Action));
        live.Disable(key);
        Assert.Equal(21, SettingCode.Run(block));

        live.Revert(); // the operations; keys are what they are
        Assert.Equal((LiveForm.Original, 1), (block[operation].Form, branch.Way));
    }

    [Fact]
    public void What_fails_on_the_way_leaves_all_settings_as_they_were()
    {
        var one = new StaticKey("one");
        var two = new StaticKey("two");
        CodeBlock[] blocks = [SettingCode.Emit(_arena, one), SettingCode.Emit(_arena, two)];
        byte[] before = LiveCode.Snapshot(blocks);
        foreach (PatchStep step in new[] { PatchStep.Planned, PatchStep.Store, PatchStep.Barrier, PatchStep.Publish })
        {
            int reached = 0;
            _live.Probe = (at, _) => _ = at == step && ++reached == (step == PatchStep.Store ? 2 : 1) ? throw new InvalidOperationException() : 0;
            Assert.False(_live.TryApply(c => c.Enable(one).Enable(two), null, out ApplyResult result));
            Assert.Equal(ApplyStatus.RolledBack, result.Status);
            Assert.Equal((0, 0), (one.Count, two.Count));
            Assert.Equal(before, LiveCode.Snapshot(blocks));
            _live.Probe = null;
        }

        _live.Apply(c => c.Enable(one).Enable(two));
        Assert.Equal((1, 1), (SettingCode.Run(blocks[0]), SettingCode.Run(blocks[1])));
    }

    [Fact]
    public void A_key_has_one_arena()
    {
        var key = new StaticKey("key");
        SettingCode.Emit(_arena, key);
        Assert.Same(_arena, key.Arena);
        using CodeArena other = CodeArena.Reserve(size: 1 << 20);
        using var live = new LivePatcher(other);
        Assert.Equal("PV8036", Assert.Throws<PatchException>(() => SettingCode.Emit(other, key)).Diagnostic.Code);
        Assert.Equal("PV8036", Assert.Throws<PatchException>(() => live.Enable(key)).Diagnostic.Code);
        Assert.Equal(0, key.Count);
    }

    [Fact]
    public void Labels_must_be_placed_and_in_reach()
    {
        var key = new StaticKey("key");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label far = a.CreateLabel();
        sites.Branch(a, key, far, length: 2);
        for (int i = 0; i < 200; i++)
        {
            a.nop();
        }

        Assert.Equal("PV8014", Assert.Throws<PatchException>(() => _arena.Emit(a, sites)).Diagnostic.Code);
        a.Label(ref far);
        a.ret();
        PatchDiagnostic reach = Assert.Throws<PatchException>(() => _arena.Emit(a, sites)).Diagnostic;
        Assert.Equal("PV8037", reach.Code);
        Assert.Contains("200 bytes", reach.Found, StringComparison.Ordinal);
        Assert.Equal(0, _live.Enable(key).Count);
        Assert.Throws<ArgumentException>(() => sites.Branch(a, [key], [far]));
        Assert.Throws<ArgumentException>(() => sites.Branch(a, [key, key], [far, far, far, far]));
        Assert.Throws<ArgumentOutOfRangeException>(() => sites.Branch(a, key, far, length: 3));
    }

    [Fact]
    public void A_site_of_a_key_takes_no_backend_and_no_link()
    {
        var key = new StaticKey("key");
        CodeBlock block = SettingCode.Emit(_arena, key);
        byte[] before = block.ToArray();
        foreach (Action<LiveChanges> change in new Action<LiveChanges>[]
        {
            c => c.Link(new SiteLink(block[0], block.Address)),
            c => c.Revert(SiteScope.Sites(block[0])),
            c => c.Unlink(SiteScope.Sites(block[0])),
        })
        {
            Assert.False(_live.TryApply(change, null, out ApplyResult result));
            Assert.Equal("PV8035", result.Diagnostics[0].Code);
            Assert.Equal(before, block.ToArray());
        }

        Assert.True(_live.TryBind([block], out _));
        _live.Revert(SiteScope.Blocks(block));
        Assert.Equal(before, block.ToArray());
    }

    [Fact]
    public void Sites_of_retired_blocks_are_written_no_more_and_forgotten()
    {
        var key = new StaticKey("key");
        CodeBlock kept = SettingCode.Emit(_arena, key);
        for (int i = 0; i < 1000; i++)
        {
            _arena.Retire(SettingCode.Emit(_arena, key));
        }

        Assert.Equal(1, _live.Enable(key).Count);
        Assert.Equal(1, SettingCode.Run(kept));
        Assert.True(key.Sites.Count < 20, "sites of retired blocks are not kept");
    }

    [Fact]
    public void A_placeholder_that_no_emitter_claims_is_refused_whatever_its_length()
    {
        foreach (int length in new[] { 2, 5 })
        {
            var a = new Assembler(64);
            Label label = a.CreateLabel();
            new SiteEmitter().Branch(a, new StaticKey("lost"), label, length: length);
            a.Label(ref label);
            a.ret();
            Assert.Equal("PV8014", Assert.Throws<PatchException>(() => _arena.Emit(a, new SiteEmitter())).Diagnostic.Code);
        }

        var own = new Assembler(64); // a host's own ud2, as data
        own.db(0x0f, 0x0b);
        Assert.Equal(2, _arena.Emit(own, new SiteEmitter()).Length);
    }
}
