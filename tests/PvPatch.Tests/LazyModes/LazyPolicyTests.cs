using PvPatch.LazyModes;

namespace PvPatch.Tests.LazyModes;

/// <summary>The policies do what Linux did under each hypervisor.</summary>
public sealed class LazyPolicyTests
{
    private readonly TestSink _sink = new();

    [Fact]
    public void Xen_flushes_32_calls_and_the_33rd_begins_the_next_batch()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        Fill(cpu, 33);
        Assert.Equal([$"Full: {Ids(32)}"], _sink.TakeLog());
        cpu.Leave(LazyMode.Mmu, 0x30);
        Assert.Equal(["Leave: 33"], _sink.TakeLog());
        cpu.Enter(LazyMode.Mmu, 0x40);
        cpu.Leave(LazyMode.Mmu, 0x50);
        Assert.Empty(_sink.Log);
    }

    [Fact]
    public void Xen_never_uses_the_last_byte_of_its_512_so_31_updates_of_16_bytes_are_one_call()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        for (int i = 1; i <= 32; i++)
        {
            cpu.Queue(new TestCall(i, IsArray: true), new byte[16], LazyMode.Mmu, 0x20);
        }

        Assert.Equal(["Arguments: 1x31"], _sink.TakeLog());
        cpu.Leave(LazyMode.Mmu, 0x30);
        Assert.Equal(["Leave: 32"], _sink.TakeLog());
    }

    [Fact]
    public void Vmi_queues_nothing_here_and_tells_its_rom_the_mode_after_entering_and_before_leaving()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Vmi);
        var task = new LazyTask("task");
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        cpu.Flush(0x30);
        cpu.StartContextSwitch(task, 0x40);
        cpu.EndContextSwitch(task, 0x50);
        cpu.Leave(LazyMode.Mmu, 0x60);
        Assert.Equal(
            [
                "mode Mmu", "Immediate: 1", "mode None", "mode Mmu", // a flush ends the mode and begins it anew
                "mode None", "mode Cpu", "mode None", "mode Mmu", "mode None",
            ],
            _sink.TakeLog());
    }

    [Fact]
    public void A_rom_that_fails_leaves_the_mode_as_it_is()
    {
        var cpu = new LazyCpu<TestCall>(2, LazyPolicy.Vmi, _sink);
        _sink.OnMode = static _ => throw new InvalidDataException("no ROM");
        PatchException error = Assert.Throws<PatchException>(() => cpu.Enter(LazyMode.Mmu, 0x10));
        Assert.Equal((DiagnosticCodes.LazySinkFailed, "CPU 2"), (error.Diagnostic.Code, error.Diagnostic.Source));
        Assert.Equal(LazyMode.None, cpu.Mode);
        _sink.OnMode = null;
        cpu.Enter(LazyMode.Mmu, 0x20);
        _sink.OnMode = static _ => throw new InvalidDataException("no ROM");
        Assert.Throws<PatchException>(() => cpu.Leave(LazyMode.Mmu, 0x30));
        Assert.Equal(LazyMode.Mmu, cpu.Mode);
    }

    [Fact]
    public void Lguest_makes_the_call_that_finds_the_ring_full_and_always_calls_at_the_end()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Lguest);
        Fill(cpu, 65);
        Assert.Equal([$"Full: {Ids(65)}"], _sink.TakeLog());
        Assert.Equal(0, cpu.Count);
        cpu.Leave(LazyMode.Mmu, 0x30);
        Assert.Equal(["Leave:"], _sink.TakeLog());

        // The hypervisor drains the ring before any call made at once.
        cpu.Enter(LazyMode.Cpu, 0x40);
        cpu.Queue(new TestCall(1), [], LazyMode.Cpu, 0x50);
        cpu.Call(new TestCall(2), [], 0x60);
        Assert.Equal(["Immediate: 1 2"], _sink.TakeLog());
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void The_call_that_finds_the_ring_full_is_kept_where_it_cannot_be_made(bool keepsOrder)
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Lguest with { KeepsOrder = keepsOrder });
        Fill(cpu, 64);
        _sink.Action = static _ => throw new InvalidDataException("no hypervisor here");
        Assert.Throws<PatchException>(() => cpu.Queue(new TestCall(65), [], LazyMode.Mmu, 0x20));
        Assert.Equal(65, cpu.Count);

        // Nothing more fits until those are made.
        Assert.Throws<PatchException>(() => cpu.Queue(new TestCall(66), [], LazyMode.Mmu, 0x30));
        Assert.Equal(65, cpu.Count);
        _sink.Action = null;
        _sink.Log.Clear();
        cpu.Call(new TestCall(99), [], 0x40);
        Assert.True(cpu.Queue(new TestCall(66), [], LazyMode.Mmu, 0x50));
        cpu.Leave(LazyMode.Mmu, 0x60);
        Assert.Equal(
            keepsOrder
                ? [$"Full: {Ids(65)}", "Immediate: 99", "Leave: 66"]
                : (string[])["Immediate: 99", $"Full: {Ids(65)}", "Leave: 66"],
            _sink.TakeLog());
    }

    [Fact]
    public void Kvm_queues_1024_bytes_in_mmu_mode_and_a_call_made_at_once_overtakes()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Kvm);
        for (int i = 1; i <= 43; i++)
        {
            cpu.Queue(new TestCall(i), [(byte)i, .. new byte[23]], LazyMode.Mmu, 0x20);
        }

        Assert.Equal([$"Arguments: {Ids(42)}"], _sink.TakeLog());

        // The release of a page table is never put off; the writes before it still are.
        byte first = 0;
        _sink.Action = batch =>
        {
            first = batch.ArgumentsOf(0)[0];
            batch.CompleteBytes(16);
        };
        Assert.Equal(0, cpu.Call(new TestCall(99), [99, .. new byte[15]], 0x30));
        Assert.Equal(99, first);
        Assert.Equal(["Immediate: 99"], _sink.TakeLog());
        Assert.Equal((1, 24), (cpu.Count, cpu.ArgumentBytes));
        _sink.Action = null;
        cpu.Leave(LazyMode.Mmu, 0x40);
        Assert.Equal(["Leave: 43"], _sink.TakeLog());

        cpu.Enter(LazyMode.Cpu, 0x50);
        Assert.False(cpu.Queue(new TestCall(1), new byte[24], LazyMode.Mmu | LazyMode.Cpu, 0x60));
    }

    [Fact]
    public void A_call_that_overtakes_and_is_not_taken_is_not_queued_and_those_queued_stay()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Kvm);
        cpu.Queue(new TestCall(1), [1], LazyMode.Mmu, 0x20);
        _sink.Action = static _ => { };
        Assert.Throws<PatchException>(() => cpu.Call(new TestCall(2), [2], 0x30));
        Assert.Equal((1, 1), (cpu.Count, cpu.ArgumentBytes));
        _sink.Action = null;
        _sink.Log.Clear();
        cpu.Flush(0x40);
        Assert.Equal(["Requested: 1"], _sink.TakeLog());
    }

    private static string Ids(int count) => string.Join(' ', Enumerable.Range(1, count));

    private static void Fill(LazyCpu<TestCall> cpu, int count)
    {
        for (int i = 1; i <= count; i++)
        {
            Assert.True(cpu.Queue(new TestCall(i), [], LazyMode.Mmu, 0x20));
        }
    }

    private LazyCpu<TestCall> Make(LazyPolicy policy)
    {
        var cpu = new LazyCpu<TestCall>(0, policy, _sink);
        cpu.Enter(LazyMode.Mmu, 0x10);
        return cpu;
    }
}
