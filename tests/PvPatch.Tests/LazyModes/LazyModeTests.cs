using PvPatch.LazyModes;

namespace PvPatch.Tests.LazyModes;

/// <summary>The modes of a CPU: entered, left, nested, parked, interrupted.</summary>
public sealed class LazyModeTests
{
    private static readonly LazyPolicy s_uncounted = LazyPolicy.Xen with { CountsNesting = false };

    private readonly TestSink _sink = new();

    [Theory]
    [InlineData(LazyMode.Mmu)]
    [InlineData(LazyMode.Cpu)]
    public void In_its_mode_a_call_is_put_off_and_leaving_makes_it_first(LazyMode mode)
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        Assert.False(cpu.Queue(new TestCall(1), [], mode, 0x10));
        cpu.Enter(mode, 0x20);
        Assert.True(cpu.Queue(new TestCall(2), [], mode, 0x30));
        Assert.True(cpu.Queue(new TestCall(3), [], mode, 0x30));
        Assert.Equal(2, cpu.Count);
        Assert.Equal(["Immediate: 1"], _sink.TakeLog());

        // The mode is still the old one while the calls are made: flush, then leave.
        LazyMode seen = LazyMode.None;
        _sink.Action = batch =>
        {
            seen = batch.Mode;
            _sink.Take(batch, batch.Count);
        };
        cpu.Leave(mode, 0x40);

        Assert.Equal(mode, seen);
        Assert.Equal(LazyMode.None, cpu.Mode);
        Assert.Equal(["Leave: 2 3"], _sink.TakeLog());
    }

    [Fact]
    public void A_call_of_another_mode_is_made_at_once_behind_those_put_off()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        Assert.False(cpu.Queue(new TestCall(2), [], LazyMode.Cpu, 0x30));
        Assert.True(cpu.Queue(new TestCall(3), [], LazyMode.Cpu | LazyMode.Mmu, 0x30));
        Assert.Equal(["Immediate: 1 2"], _sink.TakeLog());
    }

    [Fact]
    public void Counted_nesting_ends_with_the_last_leave_and_flushes_at_each()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Enter(LazyMode.Mmu, 0x20);
        Assert.Equal(2, cpu.Depth);
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x30);
        cpu.Leave(LazyMode.Mmu, 0x40);
        Assert.Equal((LazyMode.Mmu, 1), (cpu.Mode, cpu.Depth));
        cpu.Queue(new TestCall(2), [], LazyMode.Mmu, 0x50);
        cpu.Leave(LazyMode.Mmu, 0x60);
        Assert.Equal((LazyMode.None, 0), (cpu.Mode, cpu.Depth));
        Assert.Equal(["Leave: 1", "Leave: 2"], _sink.TakeLog());
    }

    [Fact]
    public void A_context_switch_parks_the_mode_with_its_task_and_the_task_has_it_again_on_another_cpu()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        LazyCpu<TestCall> other = Make(LazyPolicy.Xen, 1);
        var batching = new LazyTask("batching");
        var plain = new LazyTask("plain");
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);

        cpu.StartContextSwitch(batching, 0x30);
        Assert.Equal((LazyMode.Cpu, LazyMode.Mmu), (cpu.Mode, batching.Parked));
        cpu.Queue(new TestCall(2), [], LazyMode.Cpu, 0x40);
        cpu.EndContextSwitch(plain, 0x50);
        Assert.Equal(LazyMode.None, cpu.Mode);

        other.StartContextSwitch(plain, 0x60);
        other.EndContextSwitch(batching, 0x70);
        Assert.Equal((LazyMode.Mmu, 2, LazyMode.None), (other.Mode, other.Depth, batching.Parked));
        Assert.Equal(["ContextSwitch: 1", "ContextSwitch: 2"], _sink.TakeLog());
    }

    [Fact]
    public void In_an_interrupt_there_is_no_mode_and_its_calls_take_the_open_batch_with_them()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        cpu.EnterInterrupt(0x30);
        Assert.Equal((LazyMode.None, LazyMode.Mmu, true), (cpu.Mode, cpu.EnteredMode, cpu.IsInInterrupt));
        Assert.False(cpu.Queue(new TestCall(2), [], LazyMode.Mmu, 0x40));
        cpu.EnterInterrupt(0x50);
        cpu.LeaveInterrupt(0x60);
        Assert.Equal(LazyMode.None, cpu.Mode);
        cpu.LeaveInterrupt(0x70);
        Assert.Equal(LazyMode.Mmu, cpu.Mode);
        Assert.Equal(["Immediate: 1 2"], _sink.TakeLog());
    }

    [Fact]
    public void Where_nesting_is_counted_a_mode_entered_in_an_interrupt_has_no_effect()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        cpu.EnterInterrupt(0x10);
        cpu.Enter(LazyMode.Mmu, 0x20);
        Assert.False(cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x30));
        cpu.Leave(LazyMode.Mmu, 0x40);
        cpu.LeaveInterrupt(0x50);
        Assert.Equal(LazyMode.None, cpu.EnteredMode);
    }

    [Fact]
    public void An_observer_makes_what_is_put_off_first_and_the_strict_policy_refuses_it()
    {
        LazyCpu<TestCall> cpu = Make(LazyPolicy.Xen);
        cpu.Enter(LazyMode.Cpu, 0x10);
        cpu.Queue(new TestCall(1), [], LazyMode.Cpu, 0x20);
        cpu.Observe(0x30);
        Assert.Equal(["Observed: 1"], _sink.TakeLog());
        Assert.Equal(LazyMode.Cpu, cpu.Mode);

        LazyCpu<TestCall> strict = Make(LazyPolicy.Xen.Strict());
        strict.Observe(0x10);
        strict.Enter(LazyMode.Cpu, 0x20);
        strict.Queue(new TestCall(2), [], LazyMode.Cpu, 0x30);
        LazyMisuseTests.Refused(DiagnosticCodes.LazyObserved, strict, 0x40, c => c.Observe(0x40), "CPU mode", 0x20);
        Assert.Equal(1, strict.Count);
    }

    [Fact]
    public void Without_counting_the_same_mode_is_not_entered_twice_but_it_is_parked()
    {
        LazyCpu<TestCall> cpu = Make(s_uncounted);
        var task = new LazyTask("task");
        cpu.Enter(LazyMode.Mmu, 0x10);
        LazyMisuseTests.Refused(
            DiagnosticCodes.LazyModeActive, cpu, 0x20, c => c.Enter(LazyMode.Mmu, 0x20), "MMU mode", 0x10);
        cpu.StartContextSwitch(task, 0x30);
        cpu.EndContextSwitch(task, 0x40);
        Assert.Equal(LazyMode.Mmu, cpu.Mode);
    }

    private LazyCpu<TestCall> Make(LazyPolicy policy, int cpu = 0) => new(cpu, policy, _sink);
}
