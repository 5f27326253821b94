using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text.Json;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Settings where things meet: several layouts in one piece of code, threads, faults, what is gone.</summary>
public sealed unsafe class SettingEdgeTests : IDisposable
{
    private readonly LiveCode _code = new();
    private readonly LiveCode _other = new();

    public void Dispose()
    {
        _code.Dispose();
        _other.Dispose();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_plan_of_code_with_the_sites_of_two_emitters_can_be_verified(bool oneLayout)
    {
        using LivePatcher live = _code.Patcher();
        var key = new StaticKey("key");
        var a = new Assembler(64);
        SiteEmitter[] emitters = [new(_code.Layout), oneLayout ? new(_code.Layout) : new()];
        Label on = a.CreateLabel();
        emitters[0].Branch(a, key, on);
        emitters[1].Branch(a, key, on);
        a.ret();
        a.Label(ref on);
        a.ret();
        _code.Arena.Emit(a, emitters, out _);
        LivePlan plan = live.Plan(c => c.Enable(key));
        Assert.Equal(2, plan.Writes);
        Assert.Equal(2, plan.Verify().Original);
        live.Apply(plan);
        Assert.Equal(2, plan.Verify().Patched);
    }

    [Fact]
    public void A_backend_that_was_switched_away_from_is_not_kept()
    {
        using LivePatcher live = _code.Patcher();
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        sites.Variants(a, new SiteVariant(_code.Nops, static b => b.nop()));
        a.ret();
        _code.Arena.Retire(_code.Arena.Emit(a, sites));
        WeakReference gone = SwitchToAnother(live);
        live.Switch(_code.Nops);
        live.Switch(_code.Direct);
        for (int i = 0; gone.IsAlive && i < 10; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        Assert.False(gone.IsAlive);
    }

    [Fact]
    public void A_plan_names_what_is_called_and_not_the_jump_that_leads_there()
    {
        using var live = new LivePatcher(_code.Arena);
        var call = new StaticCall("call");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        sites.Jump(a, call);
        CodeBlock block = _code.Arena.Emit(a, sites);
        // Out of reach nearly always; where the system puts it in reach no jump is needed, and the same must hold.
        VirtualAddress far = ManagedTarget.Of((delegate* unmanaged<int>)&Nine);
        LivePlan plan = live.Plan(c => c.Target(call, far));
        Assert.Equal(far, plan.Plan[0].Target);
        live.Apply(plan);
        Assert.Equal(far, block[0].Target);
        Assert.Equal(9, SettingCode.Run(block));
    }

    [UnmanagedCallersOnly]
    private static int Nine() => 9;

    [Fact]
    public void An_entry_does_not_lead_to_itself()
    {
        using var live = new LivePatcher(_code.Arena);
        var call = new StaticCall("call");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        sites.Entry(a, call);
        a.mov(eax, 1);
        a.ret();
        CodeBlock block = _code.Arena.Emit(a, sites);
        Assert.False(live.TryApply(c => c.Target(call, block.Address), null, out ApplyResult result));
        Assert.Equal(("PV8039", (VirtualAddress?)block.Address), (result.Diagnostics[0].Code, result.Diagnostics[0].Address));
        Assert.Equal(1, SettingCode.Run(block));
        live.Apply(c => c.Target(call, _code.Two));
        Assert.Equal(2, SettingCode.Run(block));
    }

    [Fact]
    public void A_call_that_could_not_be_taken_back_holds_its_target_until_it_is_set_again()
    {
        using var live = new LivePatcher(_code.Arena);
        var call = new StaticCall("call");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        sites.Jump(a, call);
        CodeBlock block = _code.Arena.Emit(a, sites);
        CodeBlock target = Target();
        byte[] old = block[0].ToArray();
        byte* first = _code.Arena.Memory.WriteView(block[0].Address);
        live.Probe = (step, _) =>
        {
            if (step == PatchStep.Barrier)
            {
                *first = 0xcc;
                throw new InvalidOperationException("injected");
            }
        };
        Assert.False(live.TryApply(c => c.Target(call, target.Address), null, out ApplyResult result));
        Assert.Equal(ApplyStatus.Faulted, result.Status);
        live.Probe = null;
        Assert.Equal("PV8032", Assert.Throws<PatchException>(() => _code.Arena.Retire(target)).Diagnostic.Code);
        old.CopyTo(new Span<byte>(first, old.Length));
        live.Apply(c => c.Target(call, null));
        _code.Arena.Retire(target);
    }

    [Fact]
    public void What_a_block_keeps_rarely_is_kept_whoever_comes_first()
    {
        // A static call of another arena is noted with its target's block while a batch of the block's own arena runs.
        var call = new StaticCall("call");
        CodeBlock[] blocks = [.. Enumerable.Range(0, 100_000).Select(i => new CodeBlock(_code.Arena, null, _code.Arena.Address, 64, []))];
        int ready = 0;
        void Run(Action<CodeBlock> note)
        {
            Interlocked.Increment(ref ready);
            while (Volatile.Read(ref ready) < 2)
            {
                Thread.SpinWait(1);
            }

            Array.ForEach(blocks, note);
        }

        var other = new Thread(() => Run(b => b.SetCalled(call, true)));
        other.Start();
        Run(static b => b.SetLongBytes(0, []));
        other.Join();
        Assert.All(blocks, static b => Assert.Single(b.CallsInto));
        Assert.All(blocks, static b => Assert.Empty(b.LongBytesOf(0)));
    }

    [Fact]
    public void Memory_that_was_given_back_is_no_target()
    {
        using LivePatcher live = _code.Patcher(_code.Direct);
        using Executor executor = _code.Arena.RegisterExecutor(); // never inside
        var call = new StaticCall("call");
        CodeBlock kept = _code.EmitFunction(SiteWish.Aligned());
        CodeBlock target = Target();
        VirtualAddress address = target.Address;
        CodeBlock behind = Target();
        live.Apply(c => c.Target(call, address));
        live.Apply(c => c.Target(call, null));
        _code.Arena.Retire(target);
        _code.Arena.Reclaim();
        Assert.False(_code.Arena.TryFindBlock(address, out _));
        Assert.False(live.TryApply(c => c.Target(call, address), null, out ApplyResult result));
        Assert.Equal("PV8029", result.Diagnostics[0].Code);
        Assert.False(live.TryLink([new SiteLink(kept[0], address)], null, out result));
        Assert.Equal("PV8029", result.Diagnostics[0].Code);
        using var other = new LivePatcher(_other.Arena);
        Assert.False(other.TryApply(c => c.Target(new StaticCall("far"), address), null, out result));
        Assert.Equal("PV8029", result.Diagnostics[0].Code);
        other.Apply(c => c.Target(new StaticCall("far"), kept.Address));
        _code.Arena.Retire(behind);
        _code.Arena.Reclaim();
        Assert.False(live.TryApply(c => c.Target(call, address), null, out _)); // behind all that is taken
    }

    [Fact]
    public void What_is_emitted_while_others_set_and_retire_follows_what_is_set()
    {
        using LivePatcher live = _code.Patcher(_code.Nops);
        using var others = new LivePatcher(_code.Arena);
        using Executor executor = _code.Arena.RegisterExecutor(); // never inside
        (var key, var branch) = (new StaticKey("key"), new MultiBranch("branch", 2));
        (var constant, var call) = (new CodeConstant("constant"), new StaticCall("call"));
        var blocks = new List<(CodeBlock Block, Func<int> Expected)>();
        int left = 3;
        Exception? failed = null;
        void Run(Action<Random> step)
        {
            try
            {
                Random random = TestSeed.NewRandom();
                for (int i = 0; i < 400; i++)
                {
                    step(random);
                }
            }
            catch (Exception e)
            {
                failed = e;
            }
            finally
            {
                Interlocked.Decrement(ref left);
            }
        }

        SwitchOptions wait = new() { WaitForOther = true };
        Backend[] backends = [_code.Nops, _code.Direct];
        Thread[] threads =
        [
            new(() => Run(_ => blocks.Add(EmitAll(key, constant, branch, call, live)))),
            new(() => Run(r => live.Apply(c => c.Use(backends[r.Next(2)]).Set(constant, r.Next(10)), wait))),
            new(() => Run(r => others.Apply(
                c => _ = (key.IsEnabled ? c.Disable(key) : c.Enable(key)).Set(branch, r.Next(2))
                    .Target(call, r.Next(2) == 0 ? _code.Five : _code.Two), wait))),
        ];
        Array.ForEach(threads, static t => t.Start());
        while (Volatile.Read(ref left) > 0)
        {
            CodeBlock gone = Target();
            _code.Arena.Retire(gone);
        }

        Array.ForEach(threads, static t => t.Join());
        Assert.Null(failed);
        Assert.All(blocks, static b => Assert.Equal(b.Expected(), SettingCode.Run(b.Block)));
        _code.Arena.Retire([.. blocks.Select(static b => b.Block)]);
    }

    private (CodeBlock Block, Func<int> Expected) EmitAll(
        StaticKey key, CodeConstant constant, MultiBranch branch, StaticCall call, LivePatcher live)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        Label[] labels = [.. Enumerable.Range(0, 3).Select(_ => a.CreateLabel())];
        a.push(rbx);
        sites.Constant(a, constant, static b => b.mov(ebx, 0));
        sites.Variants(
            a, new SiteVariant(_code.Nops, static b => b.add(ebx, 100)), new SiteVariant(_code.Direct, static b => b.add(ebx, 200)));
        sites.Branch(a, key, labels[0]);
        a.add(ebx, 1000);
        a.Label(ref labels[0]);
        sites.Branch(a, branch, [labels[1], labels[2]]);
        a.Label(ref labels[1]);
        a.add(ebx, 10_000);
        a.Label(ref labels[2]);
        a.xor(eax, eax);
        sites.Call(a, call);
        a.add(eax, ebx);
        a.pop(rbx);
        a.ret();
        return (_code.Arena.Emit(a, sites), () => (int)constant.Value
            + (ReferenceEquals(live.Current, _code.Nops) ? 100 : 200)
            + (key.IsEnabled ? 0 : 1000)
            + (branch.Way == 1 ? 0 : 10_000)
            + (call.Target is not VirtualAddress target ? 0 : target == _code.Five ? 5 : 2));
    }

    [Fact]
    public void Who_is_refused_is_told_what_a_setting_can_do()
    {
        using var platform = new FaultyPlatform { Kind = BarrierKind.Weak, HasNativeBarrier = false };
        using var code = new LiveCode(platform, atomic16: false);
        using LivePatcher live = code.Patcher();
        var constant = new CodeConstant("constant");
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        sites.Constant(a, constant, static b => b.mov(rax, 0L));
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        Assert.False(live.TryApply(c => c.Set(constant, 1), null, out ApplyResult result));
        Assert.Equal(("PV8012", "Switch with SwitchMode.Quiescent."), (result.Diagnostics[0].Code, result.Diagnostics[0].Help));
        live.Apply(c => c.Set(constant, 1), LiveCode.Quiescent);
        Assert.Equal(1, SettingCode.Run(block));
    }

    [Fact]
    public void A_plan_of_every_kind_of_setting_is_stored_and_read_again()
    {
        using LivePatcher live = _code.Patcher();
        (var key, var call, var constant) = (new StaticKey("key"), new StaticCall("call"), new CodeConstant("constant"));
        var a = new Assembler(64);
        var sites = new SiteEmitter(_code.Layout);
        Label on = a.CreateLabel();
        sites.Branch(a, key, on);
        sites.Call(a, call);
        sites.Constant(a, constant, static b => b.mov(rax, 0L));
        sites.Variants(a, new SiteVariant(_code.Nops, static b => b.nop()), new SiteVariant(_code.Direct, static b => b.nop()));
        a.Label(ref on);
        a.ret();
        CodeBlock block = _code.Arena.Emit(a, sites);
        string dump = _code.Arena.Dump(block);
        Assert.All((string[])["key", "call", "constant", "backend of "], n => Assert.Contains(n, dump, StringComparison.Ordinal));
        PatchPlan plan = live.Plan(c => c.Use(_code.Direct).Enable(key).Target(call, _code.Two).Set(constant, 5)).Plan;
        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream))
        {
            PlanJson.Write(plan, json);
        }

        Assert.Empty(PlanDiff.Compare(plan, PlanJson.Read(stream.ToArray())).Differences);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private WeakReference SwitchToAnother(LivePatcher live)
    {
        Backend another = Backend.Create("another", _code.Layout, static b => b.Nop("t.first").Nop("t.second").Nop("t.third"));
        live.Switch(another);
        return new WeakReference(another);
    }

    private CodeBlock Target()
    {
        var a = new Assembler(64);
        a.ret();
        return _code.Arena.Emit(a);
    }
}
