using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Keys, branches and static calls as they should not be used: a clear error, and code that runs as before.</summary>
public sealed unsafe class SettingAbuseTests : IDisposable
{
    private static SettingAbuseTests? s_inside;

    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);
    private readonly LivePatcher _live;
    private readonly StaticKey _key = new("key");
    private readonly MultiBranch _branch = new("mode", 3);
    private readonly StaticCall _call = new("notify");
    private readonly List<string> _codesInside = [];

    public SettingAbuseTests() => _live = new LivePatcher(_arena);

    public void Dispose()
    {
        _live.Dispose();
        _arena.Dispose();
    }

    [Fact]
    public void What_is_refused_makes_nothing_an_arenas()
    {
        using CodeArena other = CodeArena.Reserve(size: 1 << 20);
        using var live = new LivePatcher(other);
        var near = new StaticKey("near");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label far = a.CreateLabel();
        sites.Branch(a, near, far, length: 2);
        a.nop(200);
        a.Label(ref far);
        a.ret();
        Assert.Equal("PV8037", Assert.Throws<PatchException>(() => _arena.Emit(a, sites)).Diagnostic.Code);
        Assert.False(_live.TryDisable(_key, null, out _));
        Assert.False(_live.TryApply(c => c.Target(_call, 0x1000), null, out _));
        _live.Probe = static (step, _) => _ = step == PatchStep.Publish ? throw new InvalidOperationException() : 0;
        Assert.False(_live.TryApply(c => c.Set(_branch, 1), null, out _));
        _live.Probe = null;
        Assert.NotNull(_live.Plan(c => c.Enable(near).Enable(_key).Set(_branch, 2)));
        Assert.All(new LiveSetting[] { near, _key, _branch, _call }, static s => Assert.Null(s.Arena));

        // All may be the other arena's; and where one of a batch's is not, none becomes the first one's.
        SettingCode.Emit(other, near);
        live.Enable(_key);
        Assert.Equal((other, other), (near.Arena, _key.Arena));
        Assert.False(_live.TryApply(c => c.Set(_branch, 1).Enable(_key), null, out ApplyResult refused));
        Assert.Equal("PV8036", refused.Diagnostics[0].Code);
        Assert.Null(_branch.Arena);
        Assert.Equal((1, (int?)null), (_key.Count, _branch.Way));
    }

    [Fact]
    public void A_block_with_one_foreign_key_makes_none_of_its_settings_an_arenas()
    {
        using CodeArena other = CodeArena.Reserve(size: 1 << 20);
        SettingCode.Emit(other, _key);
        var own = new StaticKey("own");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label label = a.CreateLabel();
        sites.Branch(a, own, label);
        sites.Branch(a, _key, label);
        a.Label(ref label);
        a.ret();
        Assert.Equal("PV8036", Assert.Throws<PatchException>(() => _arena.Emit(a, sites)).Diagnostic.Code);
        Assert.Null(own.Arena);
        Assert.Equal(0, SettingCode.Run(SettingCode.Emit(other, own)));
    }

    [Fact]
    public void A_plan_is_applied_once()
    {
        LivePlan first = _live.Plan(c => c.Enable(_key));
        _live.Apply(first);
        Assert.Equal("PV8033", Assert.Throws<PatchException>(() => _live.Apply(first)).Diagnostic.Code);
        Assert.Equal(1, _key.Count);

        CodeBlock block = SettingCode.Emit(_arena, _key);
        LivePlan again = _live.Plan(c => c.Enable(_key)); // nothing to write: it is on
        Assert.Equal(0, again.Writes);
        _live.Apply(again);
        PatchDiagnostic stale = Assert.Throws<PatchException>(() => _live.Apply(again)).Diagnostic;
        Assert.Equal(("PV8033", "on (2), to be on (3)", "on (1), to be on (2)"), (stale.Code, stale.Found, stale.Expected));
        Assert.Equal((2, 1), (_key.Count, SettingCode.Run(block)));
    }

    [Fact]
    public void A_plan_is_stale_once_a_block_is_retired_or_emitted()
    {
        CodeBlock block = SettingCode.Emit(_arena, _key);
        LivePlan plan = _live.Plan(c => c.Enable(_key));
        _arena.Retire(block);
        Assert.Equal("PV8033", Assert.Throws<PatchException>(() => _live.Apply(plan)).Diagnostic.Code);
        plan = _live.Plan(c => c.Enable(_key));
        block = SettingCode.Emit(_arena, _key);
        Assert.Equal("PV8033", Assert.Throws<PatchException>(() => _live.Apply(plan)).Diagnostic.Code);
        Assert.Equal((0, 0), (_key.Count, SettingCode.Run(block)));
    }

    [Fact]
    public void A_plan_is_stale_once_a_site_follows_the_backend()
    {
        using var code = new LiveCode();
        using LivePatcher live = code.Patcher(code.Nops);
        LivePlan plan = live.Plan(c => c.Use(code.Direct).Enable(_key));
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        sites.Variants(a, new SiteVariant(code.Nops, static b => b.nop()), new SiteVariant(code.Direct, static b => b.nop()));
        a.ret();
        code.Arena.Emit(a, sites);
        PatchDiagnostic stale = Assert.Throws<PatchException>(() => live.Apply(plan)).Diagnostic;
        Assert.Equal("PV8033", stale.Code);
        Assert.Contains("a site follows what none did", stale.Message, StringComparison.Ordinal);
        Assert.Equal(0, _key.Count);
        Assert.Same(code.Nops, live.Current);
    }

    [Fact]
    public void A_count_has_two_ends()
    {
        CodeBlock block = SettingCode.Emit(_arena, _key);
        _live.Enable(_key);
        _key.Value = int.MaxValue;
        Assert.False(_live.TryEnable(_key, null, out ApplyResult result));
        Assert.Equal("PV8038", result.Diagnostics[0].Code);
        Assert.Contains("too often", result.Diagnostics[0].Message, StringComparison.Ordinal);
        Assert.Equal((int.MaxValue, 1), (_key.Count, SettingCode.Run(block)));
        _live.Disable(_key);
        Assert.Equal(int.MaxValue - 1, _key.Count);
    }

    [Fact]
    public void Labels_of_another_assembler_are_refused_where_they_are_placed_there()
    {
        var other = new Assembler(64);
        other.nop();
        other.nop();
        Label foreign = other.CreateLabel();
        other.Label(ref foreign);
        other.ret();

        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label own = a.CreateLabel(); // the same number
        a.Label(ref own);
        a.nop();
        a.nop();
        a.nop();
        Assert.Equal("PV8014", Assert.Throws<PatchException>(() => sites.Branch(a, _key, foreign)).Diagnostic.Code);
        Assert.Equal("PV8014", Assert.Throws<PatchException>(() => sites.Branch(a, _branch, [own, foreign, default])).Diagnostic.Code);
        Assert.Equal(3, a.Instructions.Count);
        sites.Branch(a, _branch, [own, default, default]);
        Label here = a.CreateLabel();
        a.Label(ref here);
        sites.Branch(a, _key, here); // placed at the very site
        a.ret();
        Label lost = a.CreateLabel();
        sites.Branch(a, _key, lost);
        Assert.Equal("PV8014", Assert.Throws<PatchException>(() => _arena.Emit(a, sites)).Diagnostic.Code);
        Assert.Null(_key.Arena);
    }

    [Fact]
    public void Nothing_and_nonsense_are_refused_before_anything_is_emitted()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label label = a.CreateLabel();
        Assert.Throws<ArgumentNullException>(() => sites.Branch(null!, _key, label));
        Assert.Throws<ArgumentNullException>(() => sites.Branch(a, (StaticKey)null!, label));
        Assert.Throws<ArgumentNullException>(() => sites.Branch(a, (MultiBranch)null!, [label]));
        Assert.Throws<ArgumentNullException>(() => sites.Branch(a, [_key, null!], [label, label, label, label]));
        Assert.Throws<ArgumentNullException>(() => sites.Branch(a, _branch, null!));
        Assert.Throws<ArgumentNullException>(() => sites.Call(a, null!));
        Assert.Throws<ArgumentNullException>(() => sites.Jump(null!, _call));
        Assert.Throws<ArgumentNullException>(() => sites.JumpIf(a, ConditionCode.e, null!));
        Assert.Throws<ArgumentNullException>(() => sites.Entry(a, null!));
        Assert.Throws<ArgumentException>(() => sites.Branch(a, _branch, [label, label]));
        Assert.Throws<ArgumentOutOfRangeException>(() => sites.Branch(a, [], [label]));
        Assert.Throws<ArgumentOutOfRangeException>(() => sites.Branch(a, _key, label, length: -5));
        Assert.Throws<PatchException>(() => sites.Branch(new Assembler(32), _key, default(Label)));
        Assert.Throws<PatchException>(() => sites.Call(new Assembler(16), _call));
        Assert.Empty(a.Instructions);
        Assert.Throws<ArgumentNullException>(() => _live.Apply(c => c.Enable(null!)));
        Assert.Throws<ArgumentNullException>(() => _live.Apply(c => c.Set((MultiBranch)null!, 1)));
        Assert.Throws<ArgumentNullException>(() => _live.Apply(c => c.Target(null!, null)));
        Assert.Throws<ArgumentNullException>(() => _live.Apply(c => c.ReturnZero(null!)));
        Assert.Throws<ArgumentException>(() => new StaticKey(" "));
        Assert.Throws<ArgumentOutOfRangeException>(() => new MultiBranch("none", 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => new MultiBranch("two", 2, way: 2));
        Assert.Throws<ArgumentOutOfRangeException>(() => new MultiBranch("two", 2, way: -1));
        Assert.All(new LiveSetting[] { _key, _branch, _call }, static s => Assert.Null(s.Arena));
    }

    [Fact]
    public void Settings_outlive_their_arena_and_say_so()
    {
        CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var live = new LivePatcher(arena);
        SettingCode.Emit(arena, _key);
        live.Enable(_key);
        LivePlan plan = live.Plan(c => c.Disable(_key));
        arena.Dispose();
        Assert.False(live.TryDisable(_key, null, out ApplyResult result));
        Assert.Equal("PV8004", result.Diagnostics[0].Code);
        Assert.False(live.TryApply(plan, null, out result));
        Assert.Equal("PV8004", result.Diagnostics[0].Code);
        Assert.Equal("PV8004", Assert.Throws<PatchException>(() => SettingCode.Emit(arena, _key)).Diagnostic.Code);
        Assert.Equal("PV8036", Assert.Throws<PatchException>(() => SettingCode.Emit(_arena, _key)).Diagnostic.Code);
        Assert.Equal((1, true), (_key.Count, _key.IsEnabled));
        live.Dispose();
        Assert.Equal("PV8004", Assert.Throws<PatchException>(() => live.Enable(_key)).Diagnostic.Code);
    }

    [Fact]
    public void A_setting_is_kept_by_the_code_when_its_patcher_goes()
    {
        CodeBlock block = SettingCode.Emit(_arena, _key);
        _live.Enable(_key);
        LivePlan plan = _live.Plan(c => c.Disable(_key));
        _live.Dispose();
        Assert.Equal("PV8004", Assert.Throws<PatchException>(() => _live.Enable(_key)).Diagnostic.Code);
        using var next = new LivePatcher(_arena);
        Assert.Equal("PV8033", Assert.Throws<PatchException>(() => next.Apply(plan)).Diagnostic.Code);
        Assert.Equal(1, SettingCode.Run(block));
        Assert.Equal(1, next.Disable(_key).Written);
        Assert.Equal((0, 0), (_key.Count, SettingCode.Run(block)));
    }

    [Fact]
    public void Nothing_is_changed_from_inside_the_code()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label skip = a.CreateLabel();
        a.sub(rsp, 8);
        sites.Branch(a, _key, skip);
        sites.Call(a, _call);
        a.Label(ref skip);
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = _arena.Emit(a, sites);
        _live.Apply(c => c.Target(_call, ManagedTarget.Of((delegate* unmanaged<void>)&Inside)));
        using Executor executor = _arena.RegisterExecutor();
        s_inside = this;
        executor.Enter();
        ((delegate* unmanaged<void>)block.Address.Value)();
        executor.Leave();
        s_inside = null;
        Assert.Equal(["PV8021", "PV8021", "PV8021"], _codesInside);
        Assert.Equal((0, (int?)null), (_key.Count, _branch.Way));
        Assert.NotNull(_call.Target);
    }

    [UnmanagedCallersOnly]
    private static void Inside()
    {
        foreach (Action<LiveChanges> change in new Action<LiveChanges>[]
        {
            static c => c.Enable(s_inside!._key),
            static c => c.Set(s_inside!._branch, 1),
            static c => c.Target(s_inside!._call, null),
        })
        {
            bool applied = s_inside!._live.TryApply(change, null, out ApplyResult result);
            s_inside._codesInside.Add(applied ? "applied" : result.Diagnostics[0].Code);
        }
    }

    [Fact]
    public void A_site_written_by_somebody_else_is_refused_and_nothing_is_written()
    {
        CodeBlock first = SettingCode.Emit(_arena, _key);
        CodeBlock second = SettingCode.Emit(_arena, _key);
        byte[] before = first.ToArray();
        _arena.Memory.Span(second[0].Address, 1)[0] = 0xcc;
        Assert.False(_live.TryEnable(_key, null, out ApplyResult result));
        Assert.Equal(("PV8023", second[0].Address), (result.Diagnostics[0].Code, result.Diagnostics[0].Address));
        Assert.Equal(before, first.ToArray());
        Assert.Equal(0, _key.Count);
        _arena.Memory.Span(second[0].Address, 1)[0] = before[0];
        Assert.Equal(2, _live.Enable(_key).Written);
    }

    [Fact]
    public void A_list_of_sites_that_is_full_is_not_searched_for_each_site()
    {
        var list = (List<LiveSite>)_key.Sites;
        CodeBlock old = SettingCode.Emit(_arena, _key);
        while (list.Count < 256)
        {
            SettingCode.Emit(_arena, _key);
        }

        // One goes for each that comes: room for one site is not room enough.
        while (list.Count < list.Capacity)
        {
            SettingCode.Emit(_arena, _key);
        }

        _arena.Retire(old);
        SettingCode.Emit(_arena, _key);
        Assert.True(list.Capacity - list.Count >= list.Count / 3, $"{list.Count} of {list.Capacity}");
    }
}
