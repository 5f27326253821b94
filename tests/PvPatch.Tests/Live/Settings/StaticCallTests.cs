using Iced.Intel;
using PvPatch.Live;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Static calls in every form, for every kind of target; what keeps targets alive; what is refused.</summary>
public sealed unsafe class StaticCallTests : IDisposable
{
    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);
    private readonly LivePatcher _live;
    private readonly StaticCall _call = new("notify");

    public StaticCallTests() => _live = new LivePatcher(_arena);

    public void Dispose()
    {
        _live.Dispose();
        _arena.Dispose();
    }

    [Fact]
    public void Every_form_does_nothing_gives_zero_or_calls()
    {
        CodeBlock call = Emit((s, a) =>
        {
            a.sub(rsp, 8);
            a.mov(eax, 7);
            s.Call(a, _call);
            a.add(rsp, 8);
            a.ret();
        });
        CodeBlock tail = Emit((s, a) =>
        {
            a.mov(eax, 8);
            s.Jump(a, _call);
        });
        CodeBlock conditional = Emit((s, a) =>
        {
            a.mov(eax, 9);
            a.cmp(edi, 1);
            s.JumpIf(a, ConditionCode.l, _call);
            a.mov(eax, 10);
            a.ret();
        });
        CodeBlock entry = Emit((s, a) =>
        {
            s.Entry(a, _call);
            a.mov(eax, 11);
            a.ret();
        });
        int[] All() => [Run(call), Run(tail), Run(conditional), Run(conditional, 1), Run(entry)];
        Assert.Equal([7, 8, 9, 10, 11], All());
        Assert.Equal("c3 cc cc cc cc", HexBytes.Format(tail[0].ToArray()));

        VirtualAddress five = LiveCode.EmitHelper(_arena, 5);
        Assert.Equal((4, 1), Counts(_live.Apply(c => c.Target(_call, five))));
        Assert.Equal((five, false), (_call.Target, _call.ReturnsZero));
        Assert.Equal([5, 5, 5, 10, 5], All());
        Assert.All([call, tail, conditional, entry], b => Assert.Equal(five, b[0].Target));

        _live.Apply(c => c.ReturnZero(_call));
        Assert.Equal((null, true), (_call.Target, _call.ReturnsZero));
        Assert.Equal([0, 0, 0, 10, 0], All());

        _live.Apply(c => c.Target(_call, null));
        Assert.Equal([7, 8, 9, 10, 11], All());
    }

    [Fact]
    public void A_target_out_of_reach_is_called_through_a_jump_of_the_arena()
    {
        var far = (VirtualAddress)(ulong)(delegate* unmanaged<int>)&Managed;
        CodeBlock block = Emit((s, a) =>
        {
            s.Jump(a, _call);
        });
        _live.Apply(c => c.Target(_call, far));
        Assert.Equal(4711, Run(block));
        Assert.Equal(far, block[0].Target);
        CodeBlock after = Emit((s, a) => s.Jump(a, _call));
        Assert.Equal(4711, Run(after));
    }

    [Fact]
    public void A_block_can_not_be_retired_while_it_is_the_target()
    {
        CodeBlock target = Helper(3);
        CodeBlock next = Helper(4);
        CodeBlock site = Emit((s, a) => s.Jump(a, _call));
        _live.Apply(c => c.Target(_call, target.Address));
        _live.Apply(c => c.Target(_call, target.Address)); // twice is once
        PatchDiagnostic held = Assert.Throws<PatchException>(() => _arena.Retire(target)).Diagnostic;
        Assert.Equal(("PV8032", "notify"), (held.Code, held.Found));
        Assert.Equal(3, Run(site));

        _live.Probe = static (step, _) => _ = step == PatchStep.Publish ? throw new InvalidOperationException() : 0;
        Assert.False(_live.TryApply(c => c.Target(_call, next.Address), null, out _));
        _live.Probe = null;
        Assert.Equal("PV8032", Assert.Throws<PatchException>(() => _arena.Retire(target)).Diagnostic.Code);
        _arena.Retire(next); // the batch that named it was taken back

        _live.Apply(c => c.Target(_call, null));
        _arena.Retire(target);
        Assert.False(_live.TryApply(c => c.Target(_call, target.Address), null, out ApplyResult result));
        Assert.Equal("PV8013", result.Diagnostics[0].Code);
        Assert.Null(_call.Target);
    }

    /// <summary>What a call no longer leads to is free at once, unless another still does; what it leads to now is held.</summary>
    [Fact]
    public void A_target_is_free_when_the_last_call_has_another()
    {
        (CodeBlock first, CodeBlock second, CodeBlock third) = (Helper(3), Helper(4), Helper(5));
        var other = new StaticCall("other");
        CodeBlock site = Emit((s, a) => s.Jump(a, _call));
        _live.Apply(c => c.Target(_call, first.Address).Target(other, first.Address));
        _live.Apply(c => c.Target(_call, third.Address).Target(_call, second.Address)); // the last counts
        _arena.Retire(third);
        Assert.Equal(("PV8032", "other"), Held(first));
        _live.Apply(c => c.Target(other, second.Address));
        _arena.Retire(first);
        Assert.Equal(("PV8032", "notify, other"), Held(second));
        _live.Apply(c => c.ReturnZero(_call));
        Assert.Equal(("PV8032", "other"), Held(second));
        _live.Apply(c => c.Target(other, null));
        _arena.Retire(second);
        Assert.Equal(0, Run(site));

        (string, string?) Held(CodeBlock block)
        {
            PatchDiagnostic held = Assert.Throws<PatchException>(() => _arena.Retire(block)).Diagnostic;
            return (held.Code, held.Found);
        }
    }

    [Fact]
    public void A_target_of_another_arena_is_kept_until_the_caller_is_gone()
    {
        using CodeArena other = CodeArena.Reserve(size: 1 << 20);
        CodeBlock target = Helper(6, other);
        CodeArena caller = CodeArena.Reserve(size: 1 << 20);
        var call = new StaticCall("far");
        using (caller)
        {
            using var live = new LivePatcher(caller);
            live.Apply(c => c.Target(call, target.Address));
            Assert.Equal("PV8032", Assert.Throws<PatchException>(() => other.Retire(target)).Diagnostic.Code);
        }

        other.Retire(target);
    }

    [Fact]
    public void A_target_must_be_code()
    {
        CodeBlock site = Emit((s, a) => s.Jump(a, _call));
        foreach (ulong target in new ulong[] { 0x1000, _arena.Address.Value + (ulong)_arena.Size - 64 })
        {
            Assert.False(_live.TryApply(c => c.Target(_call, target), null, out ApplyResult result));
            Assert.Equal("PV8029", result.Diagnostics[0].Code);
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => _live.Apply(c => c.Target(_call, VirtualAddress.Zero)));
        Assert.Throws<ArgumentOutOfRangeException>(() => _live.Apply(c => c.Target(_call, ulong.MaxValue)));
        Assert.Throws<ArgumentOutOfRangeException>(() => new SiteEmitter().JumpIf(new Assembler(64), ConditionCode.None, _call));
        Assert.Equal(PatchAction.Inline, site[0].Action);
    }

    [Fact]
    public void Several_entries_are_switched_as_one()
    {
        StaticCall[] entries = [new("read"), new("write"), new("flush")];
        CodeBlock[] own = [.. entries.Select((e, i) => Emit((s, a) =>
        {
            s.Entry(a, e);
            a.mov(eax, i);
            a.ret();
        }))];
        VirtualAddress[] others = [.. entries.Select((_, i) => LiveCode.EmitHelper(_arena, 100 + i))];
        ApplyResult result = _live.Apply(c =>
        {
            for (int i = 0; i < entries.Length; i++)
            {
                c.Target(entries[i], others[i]);
            }
        });
        Assert.Equal((3, 1), Counts(result));
        Assert.Equal([100, 101, 102], own.Select(b => Run(b)));
        _live.Apply(c => Array.ForEach(entries, e => c.Target(e, null)));
        Assert.Equal([0, 1, 2], own.Select(b => Run(b)));
    }

    private static (int Written, int Barriers) Counts(ApplyResult result) => (result.Written, result.Barriers);

    private CodeBlock Emit(Action<SiteEmitter, Assembler> write)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        write(sites, a);
        return _arena.Emit(a, sites);
    }

    private CodeBlock Helper(int result, CodeArena? arena = null)
    {
        var a = new Assembler(64);
        a.mov(eax, result);
        a.ret();
        return (arena ?? _arena).Emit(a);
    }

    private static int Run(CodeBlock block, int argument = 0) => ((delegate* unmanaged<int, int>)block.Address.Value)(argument);

    [System.Runtime.InteropServices.UnmanagedCallersOnly]
    private static int Managed() => 4711;
}
