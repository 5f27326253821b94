using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Whole pieces of code per backend at one place: which one runs before, with and after switches.</summary>
public sealed unsafe class VariantTests : IDisposable
{
    private readonly LiveCode _code = new();

    public void Dispose() => _code.Dispose();

    [Fact]
    public void The_backends_variant_runs_and_control_goes_on_behind_the_place()
    {
        CodeBlock early = Emit();
        Assert.Equal(101, SettingCode.Run(early)); // what stands in place
        using LivePatcher live = _code.Patcher();
        foreach ((Backend backend, int result) in new[] { (_code.Direct, 102), (_code.Inlined, 1103), (_code.Nops, 101), (_code.Inlined, 1103) })
        {
            ApplyResult applied = live.Switch(backend);
            Assert.True(applied.Barriers <= 3, applied.ToString());
            Assert.Equal(result, SettingCode.Run(early));
            Assert.Equal(result, SettingCode.Run(Emit()));
        }

        live.Switch(_code.Direct, SiteScope.Slot(_code.First)); // one slot is not the whole
        Assert.Equal(1103, SettingCode.Run(early));
        live.Revert();
        Assert.Equal(1103, SettingCode.Run(early));
        Assert.Equal(1103, SettingCode.Run(Emit()));
    }

    [Fact]
    public void A_backend_without_a_variant_is_refused()
    {
        using LivePatcher live = _code.Patcher(_code.Nops);
        CodeBlock block = Emit();
        byte[] before = block.ToArray();
        Assert.False(live.TrySwitch(_code.Outlined, null, null, out ApplyResult result));
        Assert.Equal(("PV8039", "nops, direct, inlined"), (result.Diagnostics[0].Code, result.Diagnostics[0].Expected));
        Assert.Equal(before, block.ToArray());
        Assert.Same(_code.Nops, live.Current);
        _code.Arena.Retire(block);
        live.Switch(_code.Outlined);
        Assert.Equal("PV8039", Assert.Throws<PatchException>(() => Emit()).Diagnostic.Code);
    }

    /// <summary>There is no choice yet that switches could have been told to: it begins with what everything was switched to last.</summary>
    [Fact]
    public void The_first_place_of_all_follows_the_last_switch_of_everything_that_was_applied()
    {
        LivePatcher live = _code.Patcher(_code.Direct);
        live.Switch(_code.Inlined, SiteScope.Slot(_code.First)); // one slot is not the whole
        live.Probe = static (step, _) => _ = step == PatchStep.Publish ? throw new InvalidOperationException() : 0;
        Assert.False(live.TrySwitch(_code.Inlined, null, null, out _));
        live.Probe = null;
        live.Enable(new StaticKey("other")); // names no backend
        live.Dispose(); // slots outlive the patcher
        Assert.Equal(102, SettingCode.Run(Emit()));

        using var code = new LiveCode();
        using LivePatcher other = code.Patcher(code.Direct);
        other.Apply(c => c.Use(code.Nops).Use(code.Inlined).Use(code.Nops, SiteScope.Slot(code.First))); // the later of the two
        Assert.Equal(1103, SettingCode.Run(Emit(code)));
    }

    /// <summary>Without slots there is nothing else that tells.</summary>
    [Fact]
    public void A_layout_without_slots_has_a_backend_too()
    {
        using var live = new LivePatcher(_code.Arena);
        Backend[] backends = [.. Enumerable.Range(1, 2).Select(n => Backend.Create($"{n}", live.Layout, static _ => { }))];
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        sites.Variants(a, [.. backends.Select(static (b, i) => new SiteVariant(b, a => a.mov(eax, i + 1)))]);
        a.ret();
        CodeBlock block = _code.Arena.Emit(a, sites);
        Assert.Null(live.Current);
        foreach (Backend backend in (Backend[])[backends[1], backends[0], backends[1]])
        {
            live.Switch(backend);
            live.Revert();
            Assert.Same(backend, live.Current);
            Assert.Equal(Array.IndexOf(backends, backend) + 1, SettingCode.Run(block));
        }
    }

    [Fact]
    public void A_switch_that_fails_takes_the_variants_back()
    {
        using LivePatcher live = _code.Patcher(_code.Nops);
        CodeBlock block = Emit();
        live.Probe = static (step, _) => _ = step == PatchStep.Publish ? throw new InvalidOperationException() : 0;
        Assert.False(live.TrySwitch(_code.Direct, null, null, out ApplyResult result));
        Assert.Equal(ApplyStatus.RolledBack, result.Status);
        live.Probe = null;
        Assert.Equal((101, 101), (SettingCode.Run(block), SettingCode.Run(Emit())));
        live.Switch(_code.Direct);
        Assert.Equal(102, SettingCode.Run(block));
    }

    [Fact]
    public void Variants_may_hold_sites_and_leave_through_labels_and_are_put_where_asked()
    {
        using LivePatcher live = _code.Patcher(_code.Nops);
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        Label leave = a.CreateLabel();
        a.sub(rsp, 8);
        sites.Variants(
            a, new SiteVariant(_code.Nops, static b => b.mov(eax, 1)),
            new SiteVariant(_code.Direct, b =>
            {
                sites.Emit(b, _code.First, clobbers: Machine.RegisterSet.Rax);
                b.jmp(leave);
            }));
        a.add(rsp, 8);
        a.add(eax, 100);
        a.ret();
        sites.EmitOutOfLine(a);
        a.Label(ref leave);
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = _code.Arena.Emit(a, sites);
        live.Bind(block);
        Assert.Equal(101, SettingCode.Run(block));
        live.Switch(_code.Direct);
        Assert.Equal(2, SettingCode.Run(block));
        live.Switch(_code.Nops);
        Assert.Equal(101, SettingCode.Run(block));
    }

    [Fact]
    public void What_makes_no_sense_is_refused()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        Assert.Throws<ArgumentOutOfRangeException>(() => sites.Variants(a));
        Assert.Throws<ArgumentException>(() => sites.Variants(a, new SiteVariant(_code.Nops, b => b.nop()), new SiteVariant(_code.Nops, b => b.nop())));
        Assert.Equal("PV2004", Assert.Throws<PatchException>(
            () => new SiteEmitter().Variants(a, new SiteVariant(_code.Nops, b => b.nop()))).Diagnostic.Code);
        Assert.Empty(a.Instructions);
    }

    private CodeBlock Emit() => Emit(_code);

    /// <summary>100 and 1, 2 or, by two instructions, 1003.</summary>
    private static CodeBlock Emit(LiveCode code)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        sites.Variants(
            a, new SiteVariant(code.Nops, static b => b.mov(eax, 1)),
            new SiteVariant(code.Direct, static b => b.mov(eax, 2)),
            new SiteVariant(code.Inlined, static b =>
            {
                b.mov(eax, 3);
                b.add(eax, 1000);
            }));
        a.add(eax, 100);
        a.ret();
        return code.Arena.Emit(a, sites);
    }
}
