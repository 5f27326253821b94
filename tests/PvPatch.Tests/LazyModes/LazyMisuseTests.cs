using PvPatch.LazyModes;

namespace PvPatch.Tests.LazyModes;

/// <summary>Misuse is an error that names CPU, state, the place and the one the state comes from, and changes nothing.</summary>
public sealed class LazyMisuseTests
{
    private readonly TestSink _sink = new();
    private readonly LazyTask _task = new("init");

    public static TheoryData<string> Policies => ["xen", "xen strict", "xen uncounted", "vmi", "lguest", "kvm"];

    [Theory]
    [MemberData(nameof(Policies))]
    public void Another_mode_is_not_entered(string policy)
    {
        LazyCpu<TestCall> cpu = Make(policy);
        cpu.Enter(LazyMode.Mmu, 0x10);
        Refused(DiagnosticCodes.LazyModeActive, cpu, 0x20, static c => c.Enter(LazyMode.Cpu, 0x20), "MMU mode", 0x10);
    }

    [Theory]
    [MemberData(nameof(Policies))]
    public void A_mode_is_not_left_that_was_not_entered(string policy)
    {
        LazyCpu<TestCall> cpu = Make(policy);
        Refused(DiagnosticCodes.LazyModeUnpaired, cpu, 0x20, static c => c.Leave(LazyMode.Mmu, 0x20), "no mode");
        cpu.Enter(LazyMode.Mmu, 0x30);
        Refused(DiagnosticCodes.LazyModeUnpaired, cpu, 0x40, static c => c.Leave(LazyMode.Cpu, 0x40), "MMU mode", 0x30);
        cpu.Leave(LazyMode.Mmu, 0x50);
        Refused(DiagnosticCodes.LazyModeUnpaired, cpu, 0x60, static c => c.Leave(LazyMode.Mmu, 0x60), "no mode");
    }

    [Theory]
    [MemberData(nameof(Policies))]
    public void There_is_no_context_switch_while_the_cpu_may_be_preempted(string policy)
    {
        LazyCpu<TestCall> cpu = Make(policy);
        cpu.IsPreemptible = true;
        Refused(DiagnosticCodes.LazyPreemptible, cpu, 0x20, c => c.StartContextSwitch(_task, 0x20), "no mode");
        cpu.IsPreemptible = false;
        cpu.StartContextSwitch(_task, 0x30);
        cpu.IsPreemptible = true;
        Refused(DiagnosticCodes.LazyPreemptible, cpu, 0x40, c => c.EndContextSwitch(_task, 0x40), "CPU mode", 0x30);
    }

    [Theory]
    [MemberData(nameof(Policies))]
    public void Context_switches_begin_and_end_by_turns(string policy)
    {
        LazyCpu<TestCall> cpu = Make(policy);
        Refused(DiagnosticCodes.LazyModeUnpaired, cpu, 0x10, c => c.EndContextSwitch(_task, 0x10), "no mode");
        cpu.StartContextSwitch(_task, 0x20);
        Refused(DiagnosticCodes.LazyModeActive, cpu, 0x30, c => c.StartContextSwitch(_task, 0x30), "CPU mode", 0x20);
    }

    [Fact]
    public void The_strict_policy_preempts_and_parks_nothing()
    {
        LazyCpu<TestCall> cpu = Make("xen strict");
        cpu.IsPreemptible = true;
        Refused(DiagnosticCodes.LazyPreemptible, cpu, 0x10, static c => c.Enter(LazyMode.Mmu, 0x10), "no mode");
        cpu.IsPreemptible = false;
        cpu.Enter(LazyMode.Mmu, 0x20);
        cpu.IsPreemptible = true;
        Refused(DiagnosticCodes.LazyPreemptible, cpu, 0x30, static c => c.Leave(LazyMode.Mmu, 0x30), "MMU mode", 0x20);
        cpu.IsPreemptible = false;
        Refused(DiagnosticCodes.LazyModeActive, cpu, 0x40, c => c.StartContextSwitch(_task, 0x40), "MMU mode", 0x20);
    }

    [Fact]
    public void Where_modes_are_parked_only_cpu_mode_may_not_be_preempted()
    {
        LazyCpu<TestCall> cpu = Make("xen");
        cpu.IsPreemptible = true;
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Leave(LazyMode.Mmu, 0x20);
        Refused(DiagnosticCodes.LazyPreemptible, cpu, 0x30, static c => c.Enter(LazyMode.Cpu, 0x30), "no mode");
    }

    [Theory]
    [InlineData("xen strict")]
    [InlineData("xen uncounted")]
    [InlineData("lguest")]
    public void In_an_interrupt_no_mode_is_entered_or_left(string policy)
    {
        LazyCpu<TestCall> cpu = Make(policy);
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.EnterInterrupt(0x20);
        Refused(DiagnosticCodes.LazyInterrupt, cpu, 0x30, static c => c.Enter(LazyMode.Mmu, 0x30), "MMU mode", 0x10);
        Refused(DiagnosticCodes.LazyInterrupt, cpu, 0x30, static c => c.Leave(LazyMode.Mmu, 0x30), "interrupt entered at", 0x20);
        Refused(DiagnosticCodes.LazyInterrupt, cpu, 0x40, c => c.StartContextSwitch(_task, 0x40), "interrupt entered at", 0x20);
    }

    [Fact]
    public void What_an_interrupt_enters_it_leaves()
    {
        LazyCpu<TestCall> cpu = Make("xen");
        Refused(DiagnosticCodes.LazyInterrupt, cpu, 0x10, static c => c.LeaveInterrupt(0x10), "no mode");
        cpu.EnterInterrupt(0x20);
        Refused(DiagnosticCodes.LazyInterrupt, cpu, 0x30, static c => c.Leave(LazyMode.Mmu, 0x30), "interrupt entered at", 0x20);
        cpu.Enter(LazyMode.Mmu, 0x40);
        Refused(DiagnosticCodes.LazyInterrupt, cpu, 0x50, static c => c.LeaveInterrupt(0x50), "interrupt entered at", 0x20);
    }

    [Fact]
    public void Arguments_larger_than_their_space_are_refused_and_the_queue_stays_as_it_is()
    {
        LazyCpu<TestCall> cpu = Make("kvm");
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Queue(new TestCall(1), new byte[8], LazyMode.Mmu, 0x20);
        Refused(
            DiagnosticCodes.LazyArguments, cpu, 0x30, static c => c.Queue(new TestCall(2), new byte[1025], LazyMode.Mmu, 0x30),
            "1025 bytes");
        Refused(DiagnosticCodes.LazyArguments, cpu, 0x40, static c => c.Call(new TestCall(2), new byte[1025], 0x40), "1025 bytes");
        Refused(DiagnosticCodes.LazyArguments, cpu, 0x50, static c => c.OnFlush(static _ => { }, null, 0x50), "0 functions");
        Assert.Equal(1, cpu.Count);
        Assert.Empty(_sink.Log);
    }

    [Fact]
    public void Between_adding_and_issuing_nothing_else_is_done()
    {
        LazyCpu<TestCall> cpu = Make("xen");
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Add(new TestCall(1), [], 0x20);
        cpu.Add(new TestCall(2), [], 0x28);
        foreach (Action<LazyCpu<TestCall>> misuse in (Action<LazyCpu<TestCall>>[])
            [
                static c => c.Leave(LazyMode.Mmu, 0x30), static c => c.Enter(LazyMode.Mmu, 0x30), static c => c.EnterInterrupt(0x30),
                static c => c.Observe(0x30), c => c.StartContextSwitch(_task, 0x30), static c => c.Call(new TestCall(3), [], 0x30),
                static c => c.Queue(new TestCall(3), [], LazyMode.Mmu, 0x30),
            ])
        {
            Refused(DiagnosticCodes.LazyUnissued, cpu, 0x30, misuse, "MMU mode", 0x20);
        }

        cpu.Issue(LazyMode.Mmu, 0x40);
        cpu.Leave(LazyMode.Mmu, 0x50);
        Assert.Equal(["Leave: 1 2"], _sink.TakeLog());
    }

    [Fact]
    public void The_queue_is_not_used_from_within_a_flush()
    {
        LazyCpu<TestCall> cpu = Make("xen");
        var refused = new List<PatchException>();
        Action<LazyCpu<TestCall>>[] misuses =
        [
            static c => c.Queue(new TestCall(9), [], LazyMode.Mmu, 0x99), static c => c.Call(new TestCall(9), [], 0x99),
            static c => c.Add(new TestCall(9), [], 0x99), static c => c.Issue(LazyMode.Mmu, 0x99), static c => c.Flush(0x99),
            static c => c.Observe(0x99), static c => c.Enter(LazyMode.Mmu, 0x99), static c => c.Leave(LazyMode.Mmu, 0x99),
            static c => c.OnFlush(static _ => { }, null, 0x99), static c => c.EnterInterrupt(0x99), static c => c.LeaveInterrupt(0x99),
            c => c.StartContextSwitch(_task, 0x99), c => c.EndContextSwitch(_task, 0x99),
        ];
        void MisuseAll()
        {
            foreach (Action<LazyCpu<TestCall>> misuse in misuses)
            {
                refused.Add(Assert.Throws<PatchException>(() => misuse(cpu)));
            }
        }

        _sink.Action = batch =>
        {
            MisuseAll();
            _sink.Take(batch, batch.Count);
        };
        _sink.Result = static _ => -1;
        _sink.OnFailed = _ => MisuseAll();
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        cpu.OnFlush(_ => MisuseAll(), null, 0x30);
        cpu.Leave(LazyMode.Mmu, 0x40);

        Assert.Equal(3 * misuses.Length, refused.Count);
        Assert.All(refused, static e =>
        {
            Assert.Equal(DiagnosticCodes.LazyReentered, e.Diagnostic.Code);
            Assert.Equal(0x99ul, e.Diagnostic.Address!.Value.Value);
            Assert.Contains(new VirtualAddress(0x40).ToString(), e.Diagnostic.Found, StringComparison.Ordinal);
        });
        Assert.Equal(["Leave: 1", "failed 1 -1 0x00000020"], _sink.TakeLog());
        Assert.Equal((LazyMode.None, 0), (cpu.Mode, cpu.Count));
    }

    [Fact]
    public void A_callback_that_uses_the_queue_is_the_error_of_the_flush_and_the_others_run()
    {
        LazyCpu<TestCall> cpu = Make("xen");
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.Queue(new TestCall(1), [], LazyMode.Mmu, 0x20);
        cpu.OnFlush(_ => cpu.Queue(new TestCall(2), [], LazyMode.Mmu, 0x99), null, 0x30);
        cpu.OnFlush(_ => _sink.Log.Add("second"), null, 0x30);
        PatchException error = Assert.Throws<PatchException>(() => cpu.Leave(LazyMode.Mmu, 0x40));
        Assert.Equal(DiagnosticCodes.LazyReentered, error.Diagnostic.Code);
        Assert.Equal(["Leave: 1", "second"], _sink.TakeLog());
        Assert.Equal((LazyMode.Mmu, 0), (cpu.Mode, cpu.Count));
    }

    [Fact]
    public void A_task_does_not_end_with_a_parked_mode_and_is_not_used_after_its_end()
    {
        LazyCpu<TestCall> cpu = Make("xen");
        cpu.Enter(LazyMode.Mmu, 0x10);
        cpu.StartContextSwitch(_task, 0x20);
        PatchException parked = Assert.Throws<PatchException>(() => _task.End(0x30));
        Assert.Equal(DiagnosticCodes.LazyTask, parked.Diagnostic.Code);
        Assert.Contains("init", parked.Diagnostic.Message, StringComparison.Ordinal);
        Assert.Contains("parked by CPU 3", parked.Diagnostic.Found, StringComparison.Ordinal);
        Assert.Contains(new VirtualAddress(0x10).ToString(), parked.Diagnostic.Found, StringComparison.Ordinal);
        Assert.Equal(0x30ul, parked.Diagnostic.Address!.Value.Value);

        var other = new LazyTask("other");
        cpu.EndContextSwitch(other, 0x40);
        Refused(DiagnosticCodes.LazyTask, cpu, 0x50, c => c.StartContextSwitch(_task, 0x50), "MMU mode", 0x10);
        other.End(0x60);
        Refused(DiagnosticCodes.LazyTask, cpu, 0x70, c => c.StartContextSwitch(other, 0x70), null);
        Assert.Equal(DiagnosticCodes.LazyTask, Assert.Throws<PatchException>(() => other.End(0x80)).Diagnostic.Code);
    }

    [Theory]
    [InlineData(LazyMode.None)]
    [InlineData(LazyMode.Mmu | LazyMode.Cpu)]
    [InlineData((LazyMode)4)]
    public void One_mode_is_entered_and_left(LazyMode mode)
    {
        LazyCpu<TestCall> cpu = Make("xen");
        Assert.Throws<ArgumentOutOfRangeException>(() => cpu.Enter(mode, 0x10));
        Assert.Throws<ArgumentOutOfRangeException>(() => cpu.Leave(mode, 0x10));
    }

    [Fact]
    public void A_policy_out_of_range_makes_no_cpu()
    {
        foreach (LazyPolicy policy in (LazyPolicy[])
            [
                LazyPolicy.Xen with { Capacity = -1 }, LazyPolicy.Xen with { Capacity = 65537 }, LazyPolicy.Xen with { ArgumentBytes = -1 },
                LazyPolicy.Xen with { ArgumentBytes = (1 << 20) + 1 }, LazyPolicy.Xen with { ArgumentAlignment = 12 },
                LazyPolicy.Xen with { ArgumentAlignment = 128 }, LazyPolicy.Xen with { Callbacks = -1 },
                LazyPolicy.Xen with { DefersIn = (LazyMode)4 },
            ])
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => new LazyCpu<TestCall>(0, policy, _sink));
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => new LazyCpu<TestCall>(-1, LazyPolicy.Xen, _sink));
    }

    /// <summary>Does what is refused: the error names code, CPU, place, what was found and the other place; nothing is changed.</summary>
    internal static void Refused(
        string code, LazyCpu<TestCall> cpu, ulong site, Action<LazyCpu<TestCall>> misuse, string? found, ulong? otherSite = null)
    {
        (LazyMode, LazyMode, int, int, int) before = (cpu.Mode, cpu.EnteredMode, cpu.Depth, cpu.Count, cpu.ArgumentBytes);
        PatchDiagnostic error = Assert.Throws<PatchException>(() => misuse(cpu)).Diagnostic;
        Assert.Equal(code, error.Code);
        Assert.Equal($"CPU {cpu.Number}", error.Source);
        Assert.Equal(site, error.Address!.Value.Value);
        Assert.NotNull(error.Help);
        if (found is not null)
        {
            Assert.Contains(found, error.Found, StringComparison.Ordinal);
        }

        if (otherSite is ulong other)
        {
            Assert.Contains(new VirtualAddress(other).ToString(), error.Found, StringComparison.Ordinal);
        }

        Assert.Equal(before, (cpu.Mode, cpu.EnteredMode, cpu.Depth, cpu.Count, cpu.ArgumentBytes));
    }

    private LazyCpu<TestCall> Make(string policy) => new(
        3,
        policy switch
        {
            "xen" => LazyPolicy.Xen,
            "xen strict" => LazyPolicy.Xen.Strict(),
            "xen uncounted" => LazyPolicy.Xen with { CountsNesting = false },
            "vmi" => LazyPolicy.Vmi,
            "lguest" => LazyPolicy.Lguest,
            _ => LazyPolicy.Kvm,
        },
        _sink);
}
