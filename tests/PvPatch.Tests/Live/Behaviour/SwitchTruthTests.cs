using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// When a switch says applied, every site of every block, emitted before, during and after, does what the new backend says, as seen by
/// running it. Where one can't, the switch or the emit is refused, and what was refused is forgotten.
/// </summary>
public sealed class SwitchTruthTests
{
    private const int Trials = 150;

    private static readonly Shape[] s_shapes =
    [
        Shape.Atomic(), Shape.Atomic(1), Shape.Guarded(), Shape.Forwarded(1), Shape.Fixed(), Shape.Fixed(1, narrow: true),
        new(0, Budget: 15, Start: 0),
        new(1, Narrow: true, Budget: 9, Start: 58), new(0, Budget: 30),
    ];

    private readonly Random _random;

    public SwitchTruthTests(ITestOutputHelper output)
    {
        int seed = Environment.TickCount;
        _random = new Random(seed);
        output.WriteLine($"seed {seed}");
    }

    [Fact]
    public void Every_block_does_what_the_last_switch_says_whenever_it_was_emitted()
    {
        using var host = new LiveHost(size: 4 << 20);
        HostBackends all = host.Backends;
        var blocks = new List<CodeBlock>();
        foreach (Backend backend in (Backend[])[
            all.Inlined, all.Called, all.Outlined, all.Nops, all.Left, all.Inlined, all.Left, all.Outlined, all.Called])
        {
            blocks.Add(Probe.Emit(host, s_shapes));
            Applied(host.Switch(backend));
            CodeBlock unbound = Probe.Emit(host, s_shapes);
            CodeBlock bound = Probe.Emit(host, s_shapes);
            Applied(host.Bind(bound));
            blocks.AddRange([unbound, bound]);
            Assert.All(blocks, b => ExpectAll(host, b, backend));
        }

        // One slot, some sites, and back.
        Applied(host.SwitchSlot(1, all.Left));
        Assert.All(blocks, b => Probe.Expect(b, [.. s_shapes.Select(s => s.Slot == 1 ? 10 : 3)]));
        Applied(host.Revert(Mode.Quiescent));
        Assert.All(blocks, b => Probe.Expect(b, [.. s_shapes.Select(s => s.Slot == 1 ? 10 : 3)]));
    }

    [Theory]
    [InlineData(Mode.Live)]
    [InlineData(Mode.Quiescent)]
    [InlineData(Mode.QuiescentInPlace)]
    public void A_site_of_any_form_follows_its_slot_where_it_is_indirect(object mode)
    {
        // From every backend to every other one, one site of each shape in an arena of its own: whether a slot is stored must not depend on
        // neighbours.
        foreach (Shape shape in s_shapes)
        {
            using var host = new LiveHost();
            HostBackends all = host.Backends;
            Backend[] order = [all.Inlined, all.Left, all.Called, all.Outlined, all.Left, all.Nops, all.Called, all.Inlined, all.Outlined];
            CodeBlock block = Probe.Emit(host, shape);
            foreach (Backend backend in order)
            {
                Done done = host.Switch(backend, (Mode)mode);
                Applied(done);
                Probe.Expect(block, all.ResultOf(backend, shape.Slot));
                Probe.Expect(Probe.Emit(host, shape), all.ResultOf(backend, shape.Slot));
                Applied(host.Revert(Mode.Quiescent));
                Probe.Expect(block, all.ResultOf(backend, shape.Slot));
                Applied(host.Switch(backend, (Mode)mode));
            }
        }
    }

    /// <summary>Point 1: emitted on one thread, switched on another.</summary>
    [Fact]
    public void A_block_emitted_while_another_thread_switches_does_what_the_switch_says()
    {
        for (int trial = 0; trial < Trials; trial++)
        {
            using LiveHost host = Busy();
            HostBackends all = host.Backends;
            Applied(host.Switch(all.Inlined));
            CodeBlock? block = null;
            Done? done = null;
            Race(() => block = Probe.Emit(host, Shape.Atomic(0, narrow: true)), () => done = host.Switch(all.Called));
            Applied(done!);
            Probe.Expect(block!, 3);
        }
    }

    /// <summary>Point 1: where nothing was switched to yet, the site's registers count all the same.</summary>
    [Fact]
    public void A_block_emitted_while_another_thread_switches_for_the_first_time_loses_no_register()
    {
        for (int trial = 0; trial < Trials; trial++)
        {
            using LiveHost host = Busy();
            HostBackends all = host.Backends;
            CodeBlock first = Probe.Emit(host, Shape.Fixed());
            CodeBlock? block = null;
            Done? done = null;
            Race(() => block = Probe.Emit(host, Shape.Fixed(0, narrow: true)), () => done = host.Switch(all.Called));
            Applied(done!);
            Probe.Expect(first, 3);
            Probe.Expect(block!, 3);
        }
    }

    [Fact]
    public void A_site_that_the_slots_function_does_not_suit_is_refused_or_right_though_another_thread_switches()
    {
        for (int trial = 0; trial < Trials; trial++)
        {
            using LiveHost host = Busy();
            HostBackends all = host.Backends;
            Applied(host.Switch(all.Inlined));
            CodeBlock? block = null;
            Done? done = null;
            Done? emitted = null;
            Race(
                () => emitted = LiveHost.TryArena(() => block = Probe.Emit(host, Shape.Fixed(0, narrow: true))),
                () => done = host.Switch(all.Vector));
            Assert.True(done!.Applied != emitted!.Applied, $"{done}; {emitted}");
            Assert.Equal(DiagnosticCodes.SlotFunction, done.Code ?? emitted.Code);
            if (block is not null)
            {
                Probe.Expect(block, 1);
            }
        }
    }

    /// <summary>Point 1: a patcher that is gone leaves its functions in the slots, and new sites go through those.</summary>
    [Fact]
    public void A_block_emitted_behind_the_patchers_back_loses_no_register()
    {
        using var host = new LiveHost();
        CodeBlock first = Probe.Emit(host, Shape.Fixed());
        Applied(host.Switch(host.Backends.Called));
        host.DisposePatcher();
        CodeBlock? block = null;
        Done done = LiveHost.TryArena(() => block = Probe.Emit(host, Shape.Fixed(0, narrow: true)));
        if (done.Applied)
        {
            Probe.Expect(block!, 3);
        }

        Probe.Expect(first, 3);
    }

    [Fact]
    public void A_block_emitted_behind_the_patchers_back_that_no_thunk_can_serve_is_refused()
    {
        using var host = new LiveHost();
        Applied(host.Switch(host.Backends.Vector));
        host.DisposePatcher();
        Assert.Equal(DiagnosticCodes.SlotFunction, LiveHost.TryArena(() => Probe.Emit(host, Shape.Fixed(0, narrow: true))).Code);
    }

    /// <summary>Point 2: the only narrow site of the slot is in a retired block, in which somebody may be.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_switch_that_says_applied_holds_for_blocks_emitted_later(bool inside)
    {
        using var host = new LiveHost();
        HostBackends all = host.Backends;
        Executor executor = host.Arena.RegisterExecutor();
        CodeBlock narrow = Probe.Emit(host, Shape.Atomic(0, narrow: true));
        Applied(host.Switch(all.Inlined));
        Done? done = null;
        if (inside)
        {
            executor.Enter();
        }

        Applied(host.Retire(narrow));
        var other = new Thread(() => done = host.Switch(all.Vector)); // not from inside
        other.Start();
        other.Join();
        CodeBlock later = Probe.Emit(host, Shape.Atomic(), Shape.Fixed());
        int expected = done!.Applied ? 7 : 1;
        Assert.True(ReferenceEquals(host.Current, done.Applied ? all.Vector : all.Inlined));
        Probe.Expect(later, expected, expected);
        Applied(host.Bind(later));
        Probe.Expect(later, expected, expected);
        if (inside)
        {
            executor.Leave();
        }

        // Nobody is there any more, and what is gone asks for nothing.
        host.Arena.Reclaim();
        Applied(host.Switch(all.Vector));
        Probe.Expect(later, 7, 7);
        executor.Dispose();
    }

    [Fact]
    public void A_switch_to_what_no_slot_can_hold_is_refused_though_no_site_is_there_or_holds_for_all()
    {
        using var host = new LiveHost();
        HostBackends all = host.Backends;
        InlineBody popsBelow = InlineBody.Create(static a =>
        {
            a.mov(Iced.Intel.AssemblerRegisters.eax, Iced.Intel.AssemblerRegisters.__[Iced.Intel.AssemblerRegisters.rsp + 8]);
            a.mov(Iced.Intel.AssemblerRegisters.eax, 11);
        });
        Backend deep = Backend.Create("deep", host.Layout, b => b.Set("t.a", Operation.Inline(popsBelow)).Nop("t.b"));
        Applied(host.Switch(all.Inlined));
        CodeBlock before = Probe.Emit(host, Shape.Atomic(1));
        Done done = host.Switch(deep);
        CodeBlock? later = null;
        Done emitted = LiveHost.TryArena(() => later = Probe.Emit(host, Shape.Atomic(0), Shape.Fixed(0)));
        if (emitted.Applied)
        {
            int expected = done.Applied ? 11 : 1;
            Probe.Expect(later!, expected, expected);
        }
        else
        {
            Assert.True(done.Applied, $"{done}; {emitted}");
        }

        Probe.Expect(before, done.Applied ? 0 : 2);
    }

    /// <summary>Point 3: an emit that was refused has asked for nothing.</summary>
    [Fact]
    public void What_a_refused_emit_asked_for_is_forgotten()
    {
        using var host = new LiveHost();
        HostBackends all = host.Backends;
        CodeBlock wide = Probe.Emit(host, Shape.Atomic(), Shape.Fixed());
        Applied(host.Switch(all.Vector));
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(DiagnosticCodes.SlotFunction, LiveHost.TryArena(() => Probe.Emit(host, Shape.Atomic(0, narrow: true))).Code);
        }

        Applied(host.Switch(all.Inlined));
        Applied(host.Switch(all.Vector));
        Probe.Expect(wide, 7, 7);
        Probe.Expect(Probe.Emit(host, Shape.Atomic(), Shape.Fixed()), 7, 7);
    }

    /// <summary>Point 3: a block that is gone asks for nothing; one that is left still does.</summary>
    [Fact]
    public void What_a_retired_block_asked_for_is_forgotten()
    {
        using var host = new LiveHost();
        HostBackends all = host.Backends;
        using Executor executor = host.Arena.RegisterExecutor();
        CodeBlock wide = Probe.Emit(host, Shape.Atomic(), Shape.Fixed());
        CodeBlock[] narrow = [Probe.Emit(host, Shape.Atomic(0, narrow: true)), Probe.Emit(host, Shape.Atomic(0, narrow: true))];
        Applied(host.Switch(all.Inlined));
        Assert.Equal(DiagnosticCodes.SlotFunction, host.Switch(all.Vector).Code);
        Applied(host.Retire(narrow[0]));
        host.Arena.Reclaim();
        Assert.Equal(DiagnosticCodes.SlotFunction, host.Switch(all.Vector).Code); // the other one is there
        Applied(host.Retire(narrow[1]));
        host.Arena.Reclaim();
        Applied(host.Switch(all.Vector));
        Probe.Expect(wide, 7, 7);
        Assert.Equal(DiagnosticCodes.SlotFunction, LiveHost.TryArena(() => Probe.Emit(host, Shape.Atomic(0, narrow: true))).Code);
    }

    [Fact]
    public void Executors_run_new_functions_alone_once_a_switch_has_returned()
    {
        using var host = new LiveHost(size: 8 << 20);
        HostBackends all = host.Backends;
        Backend[] backends = [all.Inlined, all.Called, all.Outlined, all.Nops, all.Left];
        var blocks = new List<CodeBlock>();
        bool stop = false;
        Applied(host.Switch(backends[0]));
        var emitter = new Thread(() =>
        {
            while (!Volatile.Read(ref stop) && blocks.Count < 400)
            {
                CodeBlock block = Probe.Emit(host, s_shapes);
                lock (blocks)
                {
                    blocks.Add(block);
                }
            }
        });
        emitter.Start();
        for (int i = 0; i < 60; i++)
        {
            Backend backend = backends[_random.Next(backends.Length)];
            Applied(host.Switch(backend));
            CodeBlock[] there;
            lock (blocks)
            {
                there = [.. blocks];
            }

            Assert.All(there, b => ExpectAll(host, b, backend));
        }

        Volatile.Write(ref stop, true);
        emitter.Join();
    }

    private static void ExpectAll(LiveHost host, CodeBlock block, Backend backend) =>
        Probe.Expect(block, [.. s_shapes.Select(s => host.Backends.ResultOf(backend, s.Slot))]);

    private static void Applied(Done done) => Assert.True(done.Applied, done.Text);

    /// <summary>With so many sites that a switch takes about as long as an emit.</summary>
    private static LiveHost Busy()
    {
        var host = new LiveHost();
        Shape[] shapes = new Shape[400];
        Array.Fill(shapes, new Shape(1, Start: -1));
        Probe.Emit(host, shapes);
        return host;
    }

    private void Race(Action one, Action two)
    {
        int spins = _random.Next(_random.Next(20_000) + 1);
        bool first = _random.Next(2) == 0;
        using var barrier = new System.Threading.Barrier(2);
        Exception? thrown = null;
        var thread = new Thread(() =>
        {
            barrier.SignalAndWait();
            Thread.SpinWait(first ? spins : 0);
            try
            {
                one();
            }
            catch (Exception e)
            {
                thrown = e;
            }
        });
        thread.Start();
        barrier.SignalAndWait();
        Thread.SpinWait(first ? 0 : spins);
        two();
        thread.Join();
        Assert.Null(thrown);
    }
}
