using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>
/// A batch of a backend, a key, a branch, a call and a link, interrupted at every step there is: nothing of it remains, and it can be done
/// again.
/// </summary>
public sealed class MixedFaultTests : IDisposable
{
    private readonly LiveCode _code = new();
    private readonly LivePatcher _live;
    private readonly StaticKey _key = new("key");
    private readonly MultiBranch _branch = new("mode", 3);
    private readonly StaticCall _call = new("notify");
    private readonly StaticKey _unused = new("a key without sites");
    private readonly CodeBlock _block;
    private readonly CodeBlock _oldTarget;
    private readonly CodeBlock _newTarget;
    private readonly CodeBlock _linkTarget;

    public MixedFaultTests()
    {
        _live = _code.Patcher(_code.Direct);
        _oldTarget = Helper(3);
        _newTarget = Helper(30);
        _linkTarget = Helper(40);
        _block = Emit();
        _live.Apply(c => c.Bind(_block).Target(_call, _oldTarget.Address));
    }

    public void Dispose()
    {
        _live.Dispose();
        _code.Dispose();
    }

    [Theory]
    [InlineData(SwitchMode.Live)]
    [InlineData(SwitchMode.Quiescent)]
    public void Nothing_of_a_batch_remains_that_is_interrupted_anywhere(SwitchMode mode)
    {
        var options = new SwitchOptions { Mode = mode };
        var steps = new List<PatchStep>();
        int fail = int.MaxValue;
        _live.Probe = (step, _) =>
        {
            steps.Add(step);
            _ = steps.Count > fail ? throw new InvalidOperationException($"at {step}") : 0;
        };
        long[] before = Observe();
        byte[] code = _block.ToArray();
        Assert.Equal([0L, 2, 2, 2, 3], before);
        for (fail = 0; ; fail++)
        {
            steps.Clear();
            bool applied = _live.TryApply(Mixed, options, out ApplyResult result);
            if (applied)
            {
                break;
            }

            Assert.Equal((ApplyStatus.RolledBack, "PV8027"), (result.Status, result.Diagnostics[0].Code));
            Assert.Equal(code, _block.ToArray());
            Assert.Equal(before, Observe());
            Assert.Equal((0, 0, (int?)null, (VirtualAddress?)_oldTarget.Address, _code.Direct),
                (_key.Count, _unused.Count, _branch.Way, _call.Target, _live.Current));
            Assert.Null(_unused.Arena);
            Assert.Equal((LiveSiteState.Bound, LiveSiteState.Bound), (_block[0].State, _block[1].State));

            // Nothing leads to the targets of the batch, and the one before is still held.
            Assert.Equal("PV8032", Assert.Throws<PatchException>(() => _code.Arena.Retire(_oldTarget)).Diagnostic.Code);
            Assert.Empty(_newTarget.CallsInto);
            Assert.Equal(0, _linkTarget.LinksInto.Count);
        }

        // Every kind of step was one at which it failed.
        Assert.True(fail >= 9, $"only {fail} steps");
        Assert.Equal([PatchStep.Planned, PatchStep.Slot, PatchStep.Store, PatchStep.Barrier, PatchStep.Publish], steps.Distinct().Order());
        _live.Probe = null;
        Assert.Equal([20L, 1, 40, 1, 30], Observe());
        Assert.Equal((1, 1, (int?)2, (VirtualAddress?)_newTarget.Address, _code.Inlined),
            (_key.Count, _unused.Count, _branch.Way, _call.Target, _live.Current));
        _code.Arena.Retire(_oldTarget);
        Assert.Equal("PV8032", Assert.Throws<PatchException>(() => _code.Arena.Retire(_newTarget)).Diagnostic.Code);
        Assert.Equal("PV8032", Assert.Throws<PatchException>(() => _code.Arena.Retire(_linkTarget)).Diagnostic.Code);
    }

    [Fact]
    public void A_batch_refused_for_one_of_its_parts_does_no_other()
    {
        byte[] code = _block.ToArray();
        long[] before = Observe();
        foreach ((Action<LiveChanges> wrong, string expected) in new (Action<LiveChanges>, string)[]
        {
            (c => c.Disable(_key).Disable(_key), "PV8038"),
            (c => c.Target(_call, 0x1000), "PV8029"),
            (c => c.Link(new SiteLink(_block[0], 0x1000)), "PV8029"),
            (c => c.Link(new SiteLink(_block[3], _newTarget.Address)), "PV8035"),
        })
        {
            Assert.False(_live.TryApply(c => { Mixed(c); wrong(c); }, null, out ApplyResult result));
            Assert.Equal((ApplyStatus.Refused, expected), (result.Status, result.Diagnostics[0].Code));
            Assert.Equal(code, _block.ToArray());
            Assert.Equal(before, Observe());
            Assert.Empty(_newTarget.CallsInto);
            Assert.Equal(0, _linkTarget.LinksInto.Count);
            Assert.Null(_unused.Arena);
        }

        _live.Apply(Mixed);
        Assert.Equal([20L, 1, 40, 1, 30], Observe());
    }

    private void Mixed(LiveChanges c) => c.Use(_code.Inlined).Enable(_key).Enable(_unused).Set(_branch, 2)
        .Target(_call, _newTarget.Address).Link(new SiteLink(_block[1], _linkTarget.Address, RegisterSet.Rax));

    /// <summary>What the block gives: by its branches, by its three operations, by its call.</summary>
    private unsafe long[] Observe()
    {
        long* seen = stackalloc long[5];
        ((delegate* unmanaged<long*, void>)_block.Address.Value)(seen);
        return new Span<long>(seen, 5).ToArray();
    }

    private CodeBlock Helper(int result)
    {
        var a = new Assembler(64);
        a.mov(eax, result);
        a.ret();
        return _code.Arena.Emit(a);
    }

    /// <summary>void f(long* seen): an operation, one that is linked, a key's branch, a branch of three ways, a call.</summary>
    private CodeBlock Emit()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        Label skip = a.CreateLabel();
        Label one = a.CreateLabel();
        Label two = a.CreateLabel();
        Label end = a.CreateLabel();
        a.push(rbx);
        a.mov(rbx, rdi);
        sites.Emit(a, _code.First, clobbers: RegisterSet.Rax, placement: SitePlacement.InsideAligned8);
        a.mov(__qword_ptr[rbx + 8], rax);
        sites.Emit(a, _code.Layout[1], clobbers: RegisterSet.Rax, placement: SitePlacement.InsideAligned8);
        a.mov(__qword_ptr[rbx + 16], rax);
        sites.Emit(a, _code.Layout[2], clobbers: RegisterSet.Rax, placement: SitePlacement.InsideAligned8);
        a.mov(__qword_ptr[rbx + 24], rax);
        a.xor(eax, eax);
        sites.Branch(a, _key, skip);
        a.jmp(end);
        a.Label(ref skip);
        sites.Branch(a, _branch, [default, one, two]);
        a.mov(eax, 5);
        a.jmp(end);
        a.Label(ref one);
        a.mov(eax, 10);
        a.jmp(end);
        a.Label(ref two);
        a.mov(eax, 20);
        a.Label(ref end);
        a.mov(__qword_ptr[rbx], rax);
        sites.Call(a, _call);
        a.mov(__qword_ptr[rbx + 32], rax);
        a.pop(rbx);
        a.ret();
        return _code.Arena.Emit(a, sites);
    }
}
