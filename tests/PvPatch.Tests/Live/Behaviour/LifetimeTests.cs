using PvPatch.Live;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// What is disposed of while others use it, and executors whose threads do what they should not: a diagnostic, never freed memory.
/// </summary>
public sealed class LifetimeTests
{
    private const int Rounds = 40;

    /// <summary>Point 6: emitted, looked up and read while the arena goes.</summary>
    [Theory]
    [InlineData("emit")]
    [InlineData("emit through an assembler")]
    [InlineData("reserve")]
    [InlineData("switch")]
    [InlineData("find site")]
    [InlineData("find block")]
    [InlineData("read")]
    [InlineData("function")]
    [InlineData("retire")]
    [InlineData("dump")]
    public void An_arena_disposed_of_under_other_threads_gives_a_diagnostic(string what) => Isolated.Run(typeof(LifetimeTests), () =>
    {
        for (int round = 0; round < Rounds; round++)
        {
            using var host = new LiveHost();
            HostBackends all = host.Backends;
            var blocks = new CodeBlock[200];
            for (int i = 0; i < blocks.Length; i++)
            {
                blocks[i] = Probe.Emit(host, Shape.Atomic(), Shape.Guarded(1));
            }

            Act(host.Switch(all.Inlined));
            SlotTable slots = host.Arena.SlotsOf(host.Layout);
            int next = 0;
            Action act = what switch
            {
                "emit" => () => Probe.Emit(host, Shape.Atomic()),
                "emit through an assembler" => () => host.Backends.Function(1),
                "reserve" => () => Fill(host.Arena),
                "switch" => () => Act(host.Switch(next++ % 2 == 0 ? all.Outlined : all.Called)),
                "find site" => () => host.Arena.TryFindSite(blocks[next++ % blocks.Length][0].Address, out _),
                "find block" => () => host.Arena.TryFindBlock(blocks[next++ % blocks.Length].Address, out _),
                "read" => () => blocks[next++ % blocks.Length][1].ToArray(),
                "function" => () => slots.FunctionOf(host.Layout[0]),
                "retire" => () => host.Arena.Retire(blocks[next++ % blocks.Length]),
                _ => () => host.Arena.Dump(blocks[0].Address, 64),
            };
            Exception? wrong = null;
            using var started = new ManualResetEventSlim();
            bool stop = false;
            var thread = new Thread(() =>
            {
                try
                {
                    for (int i = 0; i < 100_000 && !Volatile.Read(ref stop); i++)
                    {
                        act();
                        started.Set();
                    }
                }
                catch (PatchException)
                {
                    // PV8004, and PV8013 for a block that was retired before
                }
                catch (Exception e)
                {
                    wrong = e;
                }

                started.Set();
            });
            thread.Start();
            started.Wait();
            Thread.SpinWait(round * 100);
            host.Arena.Dispose();
            Volatile.Write(ref stop, true);
            thread.Join();
            Assert.Null(wrong);
        }
    }, row: what);

    /// <summary>Point 6: what is asked of an arena that is gone.</summary>
    [Theory]
    [InlineData("find site")]
    [InlineData("find caller")]
    [InlineData("find block")]
    [InlineData("site bytes")]
    [InlineData("block bytes")]
    [InlineData("target")]
    [InlineData("inside")]
    [InlineData("inside, its executor given up")]
    [InlineData("enter")]
    [InlineData("safepoint")]
    [InlineData("function")]
    [InlineData("dump")]
    [InlineData("emit")]
    [InlineData("switch")]
    [InlineData("link")]
    [InlineData("unlink")]
    [InlineData("revert")]
    [InlineData("bind")]
    [InlineData("retire")]
    [InlineData("reclaim")]
    [InlineData("patcher disposed of")]
    public void An_arena_that_is_gone_gives_a_diagnostic_or_what_it_still_knows(string what) => Isolated.Run(typeof(LifetimeTests), () =>
    {
        var host = new LiveHost();
        HostBackends all = host.Backends;
        CodeBlock block = Probe.Emit(host, Shape.Atomic(), Shape.Guarded(1), new Shape(0, Budget: 15));
        Executor executor = host.Arena.RegisterExecutor();
        Act(host.Switch(all.Outlined));
        LiveSite site = block[0];
        SlotTable slots = host.Arena.SlotsOf(host.Layout);
        VirtualAddress function = all.Function(3);
        if (what == "inside, its executor given up")
        {
            executor.Dispose();
        }

        host.Arena.Dispose();
        Action act = what switch
        {
            "find site" => () => host.Arena.TryFindSite(site.Address, out _),
            "find caller" => () => host.Arena.TryFindCaller(site.End, out _),
            "find block" => () => host.Arena.TryFindBlock(site.Address, out _),
            "site bytes" => () => site.ToArray(),
            "block bytes" => () => block.ToArray(),
            "target" => () => _ = (site.Target, site.State, site.Form, site.ToString()),
            "inside" or "inside, its executor given up" => () => Assert.False(executor.IsInside),
            "enter" => () =>
            {
                executor.Enter();
                executor.Leave();
            }
            ,
            "safepoint" => executor.Safepoint,
            "function" => () => slots.FunctionOf(host.Layout[0]),
            "dump" => () => host.Arena.Dump(site.Address, 16),
            "emit" => () => Probe.Emit(host, Shape.Atomic()),
            "switch" => () => Expect(host.Switch(all.Inlined)),
            "link" => () => Expect(host.Link(site, function)),
            "unlink" => () => Expect(host.Unlink(site)),
            "revert" => () => Expect(host.Revert()),
            "bind" => () => Expect(host.Bind(block)),
            "retire" => () => Expect(host.Retire(block)),
            "reclaim" => () => host.Arena.Reclaim(),
            _ => host.DisposePatcher,
        };
        try
        {
            act();
        }
        catch (PatchException e)
        {
            Assert.Equal(DiagnosticCodes.ArenaDisposed, e.Diagnostic.Code);
        }
        catch (ObjectDisposedException)
        {
            Assert.Contains("executor", what, StringComparison.Ordinal);
        }

        host.Arena.Dispose(); // once more is nothing
    }, row: what);

    /// <summary>Point 7: a safepoint belongs to the thread that is inside.</summary>
    [Fact]
    public void A_safepoint_of_a_thread_that_is_not_inside_frees_nothing()
    {
        using var host = new LiveHost();
        Executor executor = host.Arena.RegisterExecutor();
        CodeBlock block = Probe.Emit(host, Shape.Atomic());
        Act(host.Switch(host.Backends.Inlined));
        byte[] before = block.ToArray();
        executor.Enter();
        var other = new Thread(() =>
        {
            Act(host.Retire(block));
            try
            {
                executor.Safepoint();
            }
            catch (Exception e) when (e is InvalidOperationException or PatchException)
            {
                // said plainly, or nothing done
            }

            host.Arena.Reclaim();
        });
        other.Start();
        other.Join();
        Assert.Equal(before, block.ToArray());
        Probe.Expect(block, 1);
        executor.Leave();
        host.Arena.Reclaim();
        Assert.NotEqual(before, block.ToArray());
        executor.Dispose();
    }

    /// <summary>Point 7: a thread that ended inside can't be inside any more.</summary>
    [Fact]
    public void An_executor_whose_thread_has_ended_inside_blocks_nobody()
    {
        using var host = new LiveHost();
        CodeBlock gone = Probe.Emit(host, Shape.Atomic());
        CodeBlock block = Probe.Emit(host, Shape.Atomic());
        Act(host.Switch(host.Backends.Inlined));
        Executor executor = host.Arena.RegisterExecutor();
        var thread = new Thread(executor.Enter);
        thread.Start();
        thread.Join();
        long used = host.Arena.Used;
        Done done = host.Switch(host.Backends.Called, Mode.Quiescent, TimeSpan.FromSeconds(5));
        Act(done);
        Probe.Expect(block, 3);
        Act(host.Retire(gone));
        host.Arena.Reclaim();
        Assert.True(host.Arena.Used < used, "what was retired is not reused");
        executor.Dispose();
        host.Arena.Dispose();
    }

    [Fact]
    public void An_executor_whose_thread_lives_is_waited_for()
    {
        using var host = new LiveHost();
        CodeBlock block = Probe.Emit(host, Shape.Atomic());
        Act(host.Switch(host.Backends.Inlined));
        Executor executor = host.Arena.RegisterExecutor();
        using var leave = new ManualResetEventSlim();
        using var entered = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            executor.Enter();
            entered.Set();
            leave.Wait();
            executor.Leave();
        });
        thread.Start();
        entered.Wait();
        Assert.Equal(DiagnosticCodes.NotQuiescent, host.Switch(host.Backends.Called, Mode.Quiescent, TimeSpan.FromMilliseconds(50)).Code);
        Probe.Expect(block, 1);
        leave.Set();
        thread.Join();
        Act(host.Switch(host.Backends.Called, Mode.Quiescent));
        executor.Dispose();
    }

    private static void Fill(CodeArena arena)
    {
        using CodeReservation room = arena.Allocate(4096);
        room.Commit(2048);
    }

    private static void Expect(Done done) => Assert.Equal(DiagnosticCodes.ArenaDisposed, done.Code);

    private static void Act(Done done)
    {
        if (!done.Applied)
        {
            Assert.True(done.Code is DiagnosticCodes.ArenaDisposed or DiagnosticCodes.BlockRetired or DiagnosticCodes.ArenaFull, done.Text);
            throw new PatchException(PatchDiagnostic.Error(done.Code!, done.Text));
        }
    }
}
