using PvPatch.LazyModes;

namespace PvPatch.Tests.LazyModes;

/// <summary>What is queued: room, arguments, growing calls, functions at the flush, results, and sinks that fail.</summary>
public sealed class CallQueueTests
{
    private readonly TestSink _sink = new();

    [Fact]
    public void Arguments_are_copied_aligned_and_handed_over_with_their_call()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen);
        byte[] arguments = [1, 2, 3];
        cpu.Queue(new TestCall(1), arguments, LazyMode.Mmu, 0x20);
        arguments[0] = 9;
        cpu.Queue(new TestCall(2), [4, 5, 6, 7], LazyMode.Mmu, 0x30);
        Assert.Equal(12, cpu.ArgumentBytes);
        var seen = new List<(string Bytes, int Offset, ulong Site, int Cpu)>();
        _sink.Action = batch =>
        {
            for (int i = 0; i < batch.Count; i++)
            {
                seen.Add((Convert.ToHexString(batch.ArgumentsOf(i)), batch.ArgumentOffsetOf(i), batch.SiteOf(i).Value, batch.Cpu));
            }

            _sink.Take(batch, batch.Count);
        };
        cpu.Flush(0x40);
        Assert.Equal([("010203", 0, 0x20ul, 0), ("04050607", 8, 0x30ul, 0)], seen);
        Assert.Equal(0, cpu.ArgumentBytes);
    }

    [Fact]
    public void A_call_grows_in_place_while_there_is_room_and_a_call_of_another_kind_ends_that()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen with { ArgumentBytes = 40 });
        cpu.Queue(new TestCall(1, IsArray: true), new byte[16], LazyMode.Mmu, 0x20);
        cpu.Queue(new TestCall(2, IsArray: true), [0xaa, .. new byte[15]], LazyMode.Mmu, 0x20);
        Assert.Equal((1, 32), (cpu.Count, cpu.ArgumentBytes));
        byte[] whole = [];
        _sink.Action = batch =>
        {
            whole = batch.ArgumentsOf(0).ToArray();
            _sink.Take(batch, batch.Count);
        };
        cpu.Queue(new TestCall(3, IsArray: true), new byte[16], LazyMode.Mmu, 0x20);
        Assert.Equal(["Arguments: 1x2"], _sink.TakeLog());
        Assert.Equal((32, 0xaa), (whole.Length, whole[16]));
        _sink.Action = null;
        cpu.Queue(new TestCall(4), [], LazyMode.Mmu, 0x20);
        cpu.Queue(new TestCall(5, IsArray: true), new byte[8], LazyMode.Mmu, 0x20);
        cpu.Flush(0x30);
        Assert.Equal(["Requested: 3 4 5"], _sink.TakeLog());
    }

    [Fact]
    public void Functions_run_once_behind_the_calls_they_wait_for_in_their_order()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen with { Callbacks = 2 });
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        cpu.OnFlush(Say, "a", 0x20);
        cpu.OnFlush(Say, "b", 0x20);
        cpu.Queue(new TestCall(2), [], LazyMode.Mmu, 0x20);
        cpu.OnFlush(Say, "c", 0x30);
        Assert.Equal(["Callbacks: 1 2", "a", "b"], _sink.TakeLog());
        cpu.Flush(0x40);
        Assert.Equal(["c"], _sink.TakeLog());
        cpu.Flush(0x50);
        Assert.Empty(_sink.Log);

        void Say(object? state) => _sink.Log.Add((string)state!);
    }

    [Fact]
    public void A_failed_call_is_told_with_its_place_and_those_behind_it_are_made()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen);
        _sink.Result = static call => call.Id == 2 ? -22 : call.Id;
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x21);
        cpu.Queue(new TestCall(2), [], LazyMode.Mmu, 0x22);
        cpu.Queue(new TestCall(3), [], LazyMode.Mmu, 0x23);
        cpu.OnFlush(_ => _sink.Log.Add("callback"), null, 0x30);
        Assert.Equal(4, cpu.Call(new TestCall(4), [], 0x40));
        Assert.Equal(["Immediate: 1 2 3 4", "failed 2 -22 0x00000022", "callback"], _sink.TakeLog());
        Assert.Equal(0, cpu.Count);
        Assert.Equal(-22, cpu.Call(new TestCall(2), [], 0x50));
    }

    [Fact]
    public void A_sink_that_takes_part_is_asked_again_for_the_rest()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen);
        for (int i = 1; i <= 5; i++)
        {
            cpu.Queue(new TestCall(i), [], LazyMode.Mmu, 0x20);
        }

        _sink.Action = batch => _sink.Take(batch, Math.Min(2, batch.Count));
        cpu.Flush(0x30);
        Assert.Equal(["Requested: 1 2 3 4 5", "Requested: 3 4 5", "Requested: 5"], _sink.TakeLog());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void What_a_sink_that_throws_did_not_take_is_kept_with_its_arguments(int taken)
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen);
        for (int i = 1; i <= 3; i++)
        {
            cpu.Queue(new TestCall(i), [(byte)i, .. new byte[i]], LazyMode.Mmu, (ulong)i);
        }

        cpu.OnFlush(_ => _sink.Log.Add("callback"), null, 0x30);
        _sink.Action = batch =>
        {
            _sink.Take(batch, taken);
            throw new InvalidDataException("no hypervisor here");
        };
        PatchException error = Assert.Throws<PatchException>(() => cpu.Leave(LazyMode.Mmu, 0x40));
        Assert.Equal(DiagnosticCodes.LazySinkFailed, error.Diagnostic.Code);
        Assert.IsType<InvalidDataException>(error.InnerException);
        Assert.Contains("no hypervisor here", error.Message, StringComparison.Ordinal);
        Assert.Contains($"{3 - taken} calls still queued", error.Diagnostic.Found, StringComparison.Ordinal);
        Assert.Equal(0x40ul, error.Diagnostic.Address!.Value.Value);
        Assert.Equal("CPU 0", error.Diagnostic.Source);
        Assert.Equal((LazyMode.Mmu, 3 - taken), (cpu.Mode, cpu.Count));
        Assert.Equal(taken == 3 ? ["Leave: 1 2 3", "callback"] : (string[])["Leave: 1 2 3"], _sink.TakeLog());

        // The rest goes on as if nothing had been.
        cpu.Queue(new TestCall(4), [4], LazyMode.Mmu, 4);
        var kept = new List<(int, byte, int, ulong)>();
        _sink.Action = batch =>
        {
            for (int i = 0; i < batch.Count; i++)
            {
                kept.Add((batch.Calls[i].Id, batch.ArgumentsOf(i)[0], batch.ArgumentsOf(i).Length, batch.SiteOf(i).Value));
            }

            _sink.Take(batch, batch.Count);
        };
        cpu.Leave(LazyMode.Mmu, 0x50);
        (int, byte, int, ulong)[] all = [(1, 1, 2, 1), (2, 2, 3, 2), (3, 3, 4, 3), (4, 4, 1, 4)];
        Assert.Equal(all[taken..], kept);
        Assert.Equal(LazyMode.None, cpu.Mode);
    }

    [Fact]
    public void A_sink_that_throws_when_room_is_needed_loses_neither_those_queued_nor_says_the_new_one_was()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen with { Capacity = 2 });
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        cpu.Queue(new TestCall(2), [], LazyMode.Mmu, 0x20);
        _sink.Action = static _ => throw new InvalidDataException("busy");
        Assert.Throws<PatchException>(() => cpu.Queue(new TestCall(3), [], LazyMode.Mmu, 0x30));
        Assert.Equal(2, cpu.Count);
        _sink.Action = null;
        _sink.Log.Clear();
        cpu.Queue(new TestCall(3), [], LazyMode.Mmu, 0x30);
        cpu.Flush(0x40);
        Assert.Equal(["Full: 1 2", "Requested: 3"], _sink.TakeLog());
    }

    [Fact]
    public void Rubbish_answers_are_errors_and_the_rest_is_kept()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Kvm);
        cpu.Queue(new TestCall(1), new byte[24], LazyMode.Mmu, 0x20);
        cpu.Queue(new TestCall(2), new byte[8], LazyMode.Mmu, 0x20);
        cpu.Queue(new TestCall(3), new byte[24], LazyMode.Mmu, 0x20);
        Answer(3, static _ => { });
        Answer(3, static batch => batch.CompleteBytes(0));
        Answer(3, static batch => batch.CompleteBytes(-8));
        Answer(3, static batch => batch.CompleteBytes(25));
        Answer(3, static batch => batch.CompleteBytes(57));
        Answer(3, static batch => batch.CompleteBytes(long.MaxValue));
        Answer(1, static batch =>
        {
            batch.CompleteBytes(32);
            batch.CompleteBytes(1);
        });
        Answer(0, static batch =>
        {
            batch.Complete(0);
            batch.Complete(0);
        });

        void Answer(int rest, TestSink.BatchAction action)
        {
            _sink.Action = action;
            PatchException error = Assert.Throws<PatchException>(() => cpu.Flush(0x30));
            Assert.Equal(DiagnosticCodes.LazySinkAnswer, error.Diagnostic.Code);
            Assert.Equal(("CPU 0", 0x30ul), (error.Diagnostic.Source, error.Diagnostic.Address!.Value.Value));
            Assert.Equal(rest, cpu.Count);
        }
    }

    [Fact]
    public void A_batch_has_no_call_beyond_its_end()
    {
        LazyCpu<TestCall> cpu = Enter(LazyPolicy.Xen);
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        int refused = 0;
        _sink.Action = batch =>
        {
            foreach (int index in (int[])[-1, 1])
            {
                try
                {
                    batch.ArgumentsOf(index);
                }
                catch (ArgumentOutOfRangeException)
                {
                    refused++;
                }
            }

            _sink.Take(batch, 1);
        };
        cpu.Flush(0x30);
        Assert.Equal(2, refused);
    }

    [Fact]
    public void Queueing_and_flushing_allocate_nothing()
    {
        var sink = new QuietSink();
        var cpu = new LazyCpu<TestCall>(0, LazyPolicy.Xen, sink);
        var task = new LazyTask("task");
        Work(cpu, task);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Work(cpu, task);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.True(sink.Made > 2000);

        static void Work(LazyCpu<TestCall> cpu, LazyTask task)
        {
            Span<byte> arguments = stackalloc byte[24];
            for (int i = 0; i < 100; i++)
            {
                cpu.Enter(LazyMode.Mmu, 1);
                for (int j = 0; j < 40; j++)
                {
                    cpu.Queue(new TestCall(j, IsArray: j % 3 == 0), arguments[..(j % 25)], LazyMode.Mmu, 2);
                    cpu.OnFlush(static _ => { }, task, 3);
                }

                cpu.Observe(4);
                cpu.StartContextSwitch(task, 5);
                cpu.Queue(new TestCall(100), [], LazyMode.Cpu, 6);
                cpu.EndContextSwitch(task, 7);
                cpu.EnterInterrupt(8);
                cpu.Call(new TestCall(101), [], 9);
                cpu.LeaveInterrupt(10);
                cpu.Leave(LazyMode.Mmu, 11);
            }
        }
    }

    private LazyCpu<TestCall> Enter(LazyPolicy policy)
    {
        var cpu = new LazyCpu<TestCall>(0, policy, _sink);
        cpu.Enter(LazyMode.Mmu, 0x10);
        return cpu;
    }

    private sealed class QuietSink : IHypercallSink<TestCall>
    {
        public int Made { get; private set; }

        public void Call(HypercallBatch<TestCall> batch)
        {
            while (batch.Count > 0)
            {
                Made += batch.Calls[0].Length;
                batch.Complete(0);
            }
        }

        public void Failed(in TestCall call, long result, VirtualAddress site) => throw new InvalidOperationException();
    }
}
