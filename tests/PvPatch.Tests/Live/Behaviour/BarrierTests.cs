using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// Every barrier of every kind of batch: with all of them no rule is broken, and without any single one of them some rule is. So each is
/// needed, each is looked at, and what a result says of their number is the number that was run.
/// </summary>
public sealed class BarrierTests
{
    /// <summary>A kind of batch.</summary>
    /// <param name="Prepare">Emits, switches and so on; gives the blocks that are looked at.</param>
    /// <param name="Act">The batch itself.</param>
    /// <param name="Barriers">How many it takes.</param>
    /// <param name="Live">Whether threads may be in the sites.</param>
    private sealed record Kind(Func<LiveHost, CodeBlock[]> Prepare, Func<LiveHost, CodeBlock[], Done?> Act, int Barriers, bool Live = true);

    private static readonly Dictionary<string, Kind> s_kinds = new()
    {
        ["one store"] = new(h => [Bound(h, Shape.Atomic(), Shape.Atomic(1))], static (h, _) => h.Switch(h.Backends.Called), 1),
        ["one store of sixteen"] = new(
            h => [Bound(h, new Shape(0, Budget: 10), new Shape(1, Budget: 15))], static (h, _) => h.Switch(h.Backends.Called), 1),
        ["guarded"] = new(h => [Bound(h, Shape.Guarded(), Shape.Guarded(1))], static (h, _) => h.Switch(h.Backends.Called), 3),
        ["guarded, long"] = new(
            h => [Bound(h, new Shape(0, Budget: 7, Start: 60), new Shape(0, Budget: 9, Start: 58), new Shape(1, Budget: 15, Start: 52))],
            static (h, _) => h.Switch(h.Backends.Called), 3),
        ["forwarded"] = new(h => [Bound(h, Shape.Forwarded(), Shape.Forwarded(1))], static (h, _) => h.Switch(h.Backends.Called), 3),
        ["mixed"] = new(
            h => [Bound(h, Shape.Guarded(), Shape.Atomic(1), Shape.Forwarded())], static (h, _) => h.Switch(h.Backends.Called), 3),
        ["islands"] = new(h => [Bound(h, Shape.Atomic(), Shape.Guarded(1))], static (h, _) => h.Switch(h.Backends.Outlined), 3),
        ["slot alone"] = new(h => [Emitted(h, Shape.Fixed())], static (h, _) => h.Switch(h.Backends.Left), 1),
        ["some sites"] = new(
            h => [Bound(h, Shape.Atomic(), Shape.Guarded())], static (h, b) => h.SwitchSites([b[0][0], b[0][1]], h.Backends.Called), 3),
        ["one slot"] = new(h => [Bound(h, Shape.Atomic(), Shape.Guarded(1))], static (h, _) => h.SwitchSlot(0, h.Backends.Called), 1),
        // one is the function's own
        ["link"] = new(h => [Bound(h, Shape.Atomic())], static (h, b) => h.Link(b[0][0], h.Backends.Function(9)), 2),
        ["link, guarded"] = new(WithTarget(linked: false), static (h, b) => h.Link(b[0][0], b[1].Address), 3),
        ["unlink"] = new(WithTarget(linked: true), static (h, b) => h.Unlink(b[0][0]), 3),
        ["unlink from"] = new(WithTarget(linked: true), static (h, b) => h.UnlinkFrom(b[1]), 3),
        ["revert"] = new(h => [Bound(h, Shape.Atomic())], static (h, _) => h.Revert(), 1),
        ["revert, guarded"] = new(h => [Bound(h, Shape.Atomic(), Shape.Guarded())], static (h, _) => h.Revert(), 3),
        ["quiescent"] = new(
            h => [Bound(h, Shape.Atomic(), Shape.Guarded(), Shape.Fixed())], static (h, _) => h.Switch(h.Backends.Called, Mode.Quiescent),
            1, Live: false),
        ["quiescent, long"] = new(
            h => [Emitted(h, new Shape(0, Budget: 30))], static (h, _) => h.Switch(h.Backends.Called, Mode.QuiescentInPlace), 1,
            Live: false),
        ["offline"] = new(
            h => [Emitted(h, Shape.Atomic(), Shape.Guarded())], static (h, _) => h.Switch(h.Backends.Called, Mode.Offline), 1, Live: false),
        ["revert at quiescence"] = new(h => [Bound(h, Shape.Atomic())], static (h, _) => h.Revert(Mode.Quiescent), 1, Live: false),
        ["bind"] = new(
            h =>
            {
                Applied(h.Switch(h.Backends.Called));
                return [Emitted(h, Shape.Atomic(), Shape.Guarded())];
            },
            static (h, b) => h.Bind(b), 1, Live: false),
        ["emit"] = new(
            h =>
            {
                Applied(h.Switch(h.Backends.Inlined));
                return [];
            },
            static (h, _) =>
            {
                Emitted(h, Shape.Atomic());
                return null;
            }, 1, Live: false),
        ["reused island"] = new(
            static h =>
            {
                Executor executor = h.Arena.RegisterExecutor();
                CodeBlock gone = Bound(h, Shape.Atomic(0), Shape.Atomic(1));
                CodeBlock stays = Emitted(h, Shape.Atomic(0), Shape.Atomic(1));
                Applied(h.SwitchSites([gone[0], gone[1]], h.Backends.Outlined));
                Applied(h.Retire(gone));
                executor.Dispose();
                return [stays];
            },
            static (h, _) => h.Switch(h.Backends.Outlined), 2),
        ["reused islands, guarded and not"] = new(
            static h =>
            {
                Executor executor = h.Arena.RegisterExecutor();
                CodeBlock gone = Bound(h, Shape.Atomic(0), Shape.Atomic(1));
                CodeBlock stays = Emitted(h, Shape.Guarded(0), Shape.Atomic(1));
                Applied(h.SwitchSites([gone[0], gone[1]], h.Backends.Outlined));
                Applied(h.Retire(gone));
                executor.Dispose();
                return [stays];
            },
            static (h, _) => h.Switch(h.Backends.Outlined), 4),
        ["function where code stood"] = new(
            static h => [RetireBigBlock(h, () => Emitted(h, Shape.Atomic(0, narrow: true)))], static (h, _) => h.Switch(h.Backends.Called),
            2),
        ["function of an emit where code stood"] = new(
            static h => [RetireBigBlock(h, () =>
            {
                CodeBlock block = Emitted(h, Shape.Fixed());
                Applied(h.Switch(h.Backends.Called));
                return block;
            })],
            static (h, _) =>
            {
                Emitted(h, Shape.Atomic(0, narrow: true));
                return null;
            }, 2),
    };

    public static TheoryData<string> Kinds { get; } = [.. s_kinds.Keys];

    [Theory]
    [MemberData(nameof(Kinds))]
    public void A_batch_breaks_no_rule_and_without_any_of_its_barriers_it_would(string name)
    {
        Kind kind = s_kinds[name];
        (List<string> faults, int seen, Done? done) = Run(kind, dropped: -1);
        Assert.Empty(faults);
        Assert.Equal(kind.Barriers, seen);
        if (name != "link")
        {
            Assert.Equal(seen, done?.Barriers ?? seen);
        }

        for (int i = 0; i < seen; i++)
        {
            if (name == "link" && i == 0)
            {
                continue; // the function's, which is another block's
            }

            (List<string> without, _, _) = Run(kind, i);
            Assert.True(without.Count > 0, $"without barrier {i} of {seen} no rule is broken");
        }
    }

    [Fact]
    public void What_is_taken_back_has_a_barrier_behind_it()
    {
        for (int stop = 0; stop < 3; stop++)
        {
            using var spy = new SpyPlatform();
            using var host = new LiveHost(spy);
            CodeBlock block = Bound(host, Shape.Guarded(), Shape.Atomic(1));
            byte[] before = block.ToArray();
            using var cancel = new CancellationTokenSource();
            spy.At = n =>
            {
                if (n == stop)
                {
                    cancel.Cancel();
                }
            };
            spy.Restart();
            Done done = host.Switch(host.Backends.Called, cancellation: cancel.Token);
            Assert.True(done.TakenBack, done.Text);
            Assert.Empty(BarrierHistory.Faults(spy, [block[0], block[1]], SlotsOf(host), live: true));
            Assert.True(spy.Barriers > 3, "nothing was run behind what was taken back");
            Assert.Equal(before, block.ToArray());
            Assert.Equal(spy.Barriers, done.Barriers);
        }
    }

    /// <summary>An executor that read the open gate just before it was closed, and whose own store is seen only at the barrier.</summary>
    [Theory]
    [InlineData(Mode.Quiescent)]
    [InlineData(Mode.QuiescentInPlace)]
    public unsafe void The_gate_has_a_barrier_before_anyone_is_counted(object mode)
    {
        using var spy = new SpyPlatform();
        using var host = new LiveHost(spy);
        CodeBlock block = Bound(host, Shape.Atomic());
        Executor executor = host.Arena.RegisterExecutor();
        long* counter = (long*)executor.CounterAddress.Value;
        byte[] before = block.ToArray();
        spy.At = n => *counter += n == 0 ? 1 : 0;
        spy.Restart();
        Done done = host.Switch(host.Backends.Called, (Mode)mode, TimeSpan.FromMilliseconds(50));
        Assert.Equal(DiagnosticCodes.NotQuiescent, done.Code);
        Assert.Equal(before, block.ToArray());
        spy.At = null;
        *counter += 1;
        Applied(host.Switch(host.Backends.Called, (Mode)mode));
        executor.Dispose();
    }

    [Fact]
    public void A_result_counts_the_barrier_of_the_gate()
    {
        using var spy = new SpyPlatform();
        using var host = new LiveHost(spy);
        Bound(host, Shape.Atomic());
        using Executor executor = host.Arena.RegisterExecutor();
        spy.Restart();
        Done done = host.Switch(host.Backends.Called, Mode.Quiescent);
        Applied(done);
        Assert.Equal(spy.Barriers, done.Barriers);
    }

    [Fact]
    public void A_gate_whose_barrier_fails_is_not_taken_for_closed()
    {
        using var spy = new SpyPlatform();
        using var host = new LiveHost(spy);
        CodeBlock block = Bound(host, Shape.Atomic());
        using Executor executor = host.Arena.RegisterExecutor();
        byte[] before = block.ToArray();
        spy.Restart();
        spy.Failing = 0;
        Done done = host.Switch(host.Backends.Called, Mode.Quiescent);
        if (done.Applied)
        {
            Assert.Equal(BarrierKind.Weak, done.Barrier); // another one in its place, and the result says so
            Probe.Expect(block, 3);
        }
        else
        {
            Assert.Equal(before, block.ToArray());
            Probe.Expect(block, 1);
        }

        executor.Enter(); // it is open again
        executor.Leave();
    }

    [Fact]
    public void Traps_of_slots_that_are_made_where_code_stood_have_a_barrier_behind_them()
    {
        using var spy = new SpyPlatform();
        using var host = new LiveHost(spy);
        RetireBigBlock(host, () => Emitted(host, Shape.Atomic()));
        spy.Restart();
        OpsLayout other = OpsLayout.Create(static b => b.Table("u", static t => t.Slot("unbound")), "other");
        ulong trap = host.Arena.SlotsOf(other).FunctionOf(other[0]).Value;
        Assert.False(spy.Images[0].At(trap, 2).SequenceEqual(spy.Now().At(trap, 2)), "the traps do not lie where code stood");
        Assert.Equal(spy.Now().At(trap, 2).ToArray(), spy.Images[^1].At(trap, 2).ToArray());
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public unsafe void A_retired_block_has_a_barrier_before_those_inside_are_counted(bool dropped)
    {
        using var spy = new SpyPlatform();
        using var host = new LiveHost(spy);
        CodeBlock block = Bound(host, Shape.Atomic());
        Executor executor = host.Arena.RegisterExecutor();
        long* counter = (long*)executor.CounterAddress.Value;
        byte[] before = block.ToArray();
        spy.At = n => *counter += n == 0 && !dropped ? 1 : 0;
        spy.Restart();
        host.Arena.Retire(block);
        Assert.True(spy.Barriers >= 1);
        byte[] behind = spy.Now().At(block.Address.Value, block.Length).ToArray();
        if (dropped)
        {
            Assert.NotEqual(before, behind); // nobody is inside: freed at once
        }
        else
        {
            Assert.Equal(before, behind); // somebody is, as the barrier showed
            host.Arena.Reclaim();
            Assert.Equal(before, spy.Now().At(block.Address.Value, block.Length).ToArray());
            *counter += 1;
            host.Arena.Reclaim();
            Assert.NotEqual(before, spy.Now().At(block.Address.Value, block.Length).ToArray());
        }

        executor.Dispose();
    }

    /// <summary>
    /// Executors are forwarded around a body of several instructions, and who was inside before the barrier is waited for.
    /// </summary>
    [Fact]
    public unsafe void A_body_that_drains_has_a_barrier_before_those_inside_are_counted()
    {
        using var spy = new SpyPlatform();
        using var host = new LiveHost(spy);
        CodeBlock block = Emitted(host, new Shape(0, Budget: 15, Forwarding: true));
        Executor executor = host.Arena.RegisterExecutor();
        long* counter = (long*)executor.CounterAddress.Value;
        Applied(host.Switch(host.Backends.Outlined, Mode.QuiescentInPlace));
        byte[] before = block.ToArray();
        spy.At = n => *counter += n == 0 ? 1 : 0;
        spy.Restart();
        Done done = host.Switch(host.Backends.Called, timeout: TimeSpan.FromMilliseconds(50));
        Assert.Equal(DiagnosticCodes.GraceTimeout, done.Code);
        Assert.Equal(before, block.ToArray());
        Assert.Empty(BarrierHistory.Faults(spy, [block[0]], SlotsOf(host), live: true));
        Assert.Equal(0xeb, spy.Images[1].At(block[0].Address.Value, 1)[0]); // forwarded when the first one was run
        *counter += 1;
        spy.At = null;
        spy.Restart();
        done = host.Switch(host.Backends.Called);
        Assert.True(done.Applied, done.Text);
        Assert.Empty(BarrierHistory.Faults(spy, [block[0]], SlotsOf(host), live: true));
        Assert.Equal(spy.Barriers, done.Barriers);
        Probe.Expect(block, 3);
        executor.Dispose();
    }

    private static (List<string> Faults, int Seen, Done? Done) Run(Kind kind, int dropped)
    {
        using var spy = new SpyPlatform();
        using var host = new LiveHost(spy);
        CodeBlock[] blocks = kind.Prepare(host);
        _ = host.Backends; // all functions are there
        spy.Restart();
        spy.Dropped = dropped;
        Done? done = kind.Act(host, blocks);
        if (done is not null)
        {
            Applied(done);
        }

        LiveSite[] sites = [.. blocks.SelectMany(static b => Enumerable.Range(0, b.SiteCount).Select(i => b[i]))];
        return (BarrierHistory.Faults(spy, sites, SlotsOf(host), kind.Live), spy.Barriers, done);
    }

    private static ulong[] SlotsOf(LiveHost host)
    {
        SlotTable slots = host.Arena.SlotsOf(host.Layout);
        return [.. Enumerable.Range(0, host.Layout.Count).Select(i => slots.AddressOf(host.Layout[i]).Value)];
    }

    private static void Applied(Done done) => Assert.True(done.Applied, done.Text);

    private static CodeBlock Emitted(LiveHost host, params ReadOnlySpan<Shape> shapes) => Probe.Emit(host, shapes);

    /// <summary>A block switched to the backend that is inlined, which gives 1 and 2.</summary>
    private static CodeBlock Bound(LiveHost host, params ReadOnlySpan<Shape> shapes)
    {
        CodeBlock block = Probe.Emit(host, shapes);
        Applied(host.Switch(host.Backends.Inlined));
        return block;
    }

    private static Func<LiveHost, CodeBlock[]> WithTarget(bool linked) => h =>
    {
        CodeBlock[] blocks = [Bound(h, Shape.Guarded()), h.Backends.FunctionBlock(9)];
        if (linked)
        {
            Applied(h.Link(blocks[0][0], blocks[1].Address, HostBackends.Narrow));
        }

        return blocks;
    };

    /// <summary>Leaves room where code stood, before anything is emitted that is made by the batch.</summary>
    private static CodeBlock RetireBigBlock(LiveHost host, Func<CodeBlock> then)
    {
        Executor executor = host.Arena.RegisterExecutor();
        var a = new Assembler(64);
        for (int i = 0; i < 6000; i++)
        {
            a.mov(AssemblerRegisters.ecx, i);
        }

        a.ret();
        CodeBlock big = host.Arena.Emit(a);
        CodeBlock block = then();
        Applied(host.Retire(big));
        executor.Dispose();
        return block;
    }
}
