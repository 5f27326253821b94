using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Tests.Backends;

/// <summary>
/// What guests of Hyper-V, guests of VMware and trust domains change against bare hardware. The slots were read from the memory of booted
/// kernels.
/// </summary>
public sealed class GuestTargetsTests
{
    private const string Locks = "lock.kick lock.queued_spin_lock_slowpath lock.queued_spin_unlock lock.vcpu_is_preempted lock.wait";

    // CPUID 0x40000003 eax and 0x40000004 eax as the guests were given them, but for the bits every guest needs.
    [Theory]
    [InlineData("5.10", 0x602, 0x404, Locks + " mmu.flush_tlb_others mmu.tlb_remove_table time.sched_clock")]
    [InlineData("5.10", 0x402, 0x400, Locks + " time.sched_clock")]
    [InlineData("5.10", 0x400, 0x4, "mmu.flush_tlb_others mmu.tlb_remove_table")]
    [InlineData("5.10", 0, 0x404, "mmu.flush_tlb_others mmu.tlb_remove_table")]
    [InlineData("6.1", 0x602, 0x404, Locks + " mmu.flush_tlb_multi mmu.tlb_remove_table")]
    [InlineData("6.12", 0x602, 0x404, Locks + " mmu.flush_tlb_multi mmu.tlb_remove_table")]
    [InlineData("6.12", 0x602, 0x4, "mmu.flush_tlb_multi mmu.tlb_remove_table")]
    [InlineData("6.12", 0x602, 0x400, Locks)]
    [InlineData("6.12", 0, 0, "")]
    public void Hyper_v_changes_the_slots_seen_on_booted_kernels(string kernel, uint features, uint hints, string slots)
    {
        var options = new HyperVOptions { Features = (HyperVFeatures)features, Hints = (HyperVHints)hints };
        Assert.Equal(slots, Changed(kernel, (layout, targets) => HyperVBackend.Create(layout, 64, targets, options)));
    }

    [Fact]
    public void Hyper_v_has_its_own_functions_in_the_slots()
    {
        Backend backend = HyperVBackend.Create(KernelLayouts.Of("5.10"), 64, KernelLayouts.Targets("5.10"));
        Assert.Equal("read_hv_sched_clock_tsc", backend["time.sched_clock"].TargetName);
        Assert.Equal("hv_qlock_wait", backend["lock.wait"].TargetName);
        Assert.Equal("hv_qlock_kick", backend["lock.kick"].TargetName);
        Assert.Equal("__raw_callee_save_hv_vcpu_is_preempted", backend["lock.vcpu_is_preempted"].TargetName);
        var old = new HyperVOptions { Features = HyperVFeatures.ReferenceCounter };
        Assert.Equal("read_hv_sched_clock_msr",
            HyperVBackend.Create(backend.Layout, 64, KernelLayouts.Targets("5.10"), old)["time.sched_clock"].TargetName);
    }

    [Fact]
    public void Hyper_v_locks_are_all_switched_off_by_its_own_word()
    {
        var options = new HyperVOptions { NoPvSpin = true };
        Assert.Equal("mmu.flush_tlb_multi mmu.tlb_remove_table",
            Changed("6.1", (layout, targets) => HyperVBackend.Create(layout, 64, targets, options)));
    }

    [Fact]
    public void Hyper_v_puts_all_of_a_queued_lock_or_nothing_of_it()
    {
        Dictionary<string, VirtualAddress> symbols = KernelLayouts.Symbols("6.1");
        symbols.Remove("hv_qlock_kick");
        Backend backend = HyperVBackend.Create(KernelLayouts.Of("6.1"), 64, new SlotTargets(symbols));
        Assert.Equal("native_queued_spin_lock_slowpath", backend["lock.queued_spin_lock_slowpath"].TargetName);
        Assert.Equal("__raw_callee_save___native_vcpu_is_preempted", backend["lock.vcpu_is_preempted"].TargetName);
    }

    [Theory]
    [InlineData("5.10", VmwareClock.None, "cpu.io_delay")]
    [InlineData("5.10", VmwareClock.Frequency, "cpu.io_delay time.sched_clock")]
    [InlineData("5.10", VmwareClock.StolenTime, "cpu.io_delay time.sched_clock time.steal_clock")]
    [InlineData("6.1", VmwareClock.StolenTime, "cpu.io_delay")]
    [InlineData("6.12", VmwareClock.StolenTime, "cpu.io_delay")]
    public void Vmware_changes_the_slots_seen_on_booted_kernels(string kernel, VmwareClock clock, string slots)
    {
        var options = new VmwareOptions { Clock = clock };
        Assert.Equal(slots, Changed(kernel, (layout, targets) => VmwareBackend.Create(layout, 64, targets, options)));
    }

    [Fact]
    public void Vmware_delays_by_nothing_and_may_keep_the_kernels_clock()
    {
        Backend backend = VmwareBackend.Create(
            KernelLayouts.Of("5.10"), 64, KernelLayouts.Targets("5.10"), new VmwareOptions { NoSchedClock = true });
        Assert.Equal(OperationKind.Nop, backend["cpu.io_delay"].Kind);
        Assert.Equal(KernelLayouts.Symbols("5.10")["_paravirt_nop"], backend["cpu.io_delay"].Target);
        Assert.Equal("native_sched_clock", backend["time.sched_clock"].TargetName);
        Assert.Equal("vmware_steal_clock", backend["time.steal_clock"].TargetName);
    }

    [Fact]
    public void A_trust_domain_changes_how_to_halt_and_what_its_host_changes()
    {
        Assert.Equal("irq.halt irq.safe_halt", Changed("6.12", static (layout, targets) => TdxBackend.Create(layout, 64, targets)));
        var options = new TdxOptions { Kvm = new KvmOptions { Features = KvmFeatures.UsualTdx } };
        Assert.Equal(
            "cpu.io_delay irq.halt irq.safe_halt lock.kick lock.queued_spin_lock_slowpath lock.queued_spin_unlock lock.wait",
            Changed("6.12", (layout, targets) => TdxBackend.Create(layout, 64, targets, options)));
    }

    [Fact]
    public void A_kernel_without_tdx_halt_leaves_both_slots_alone()
    {
        Dictionary<string, VirtualAddress> symbols = KernelLayouts.Symbols("6.1");
        symbols.Remove("tdx_halt");
        Backend backend = TdxBackend.Create(KernelLayouts.Of("6.1"), 64, new SlotTargets(symbols));
        Assert.Equal("native_safe_halt", backend["irq.safe_halt"].TargetName);
        Assert.Equal("native_halt", backend["irq.halt"].TargetName);
    }

    // 7.3: the slow path and the unlock of queued locks are static calls; wait, kick and preempted are still slots (booted, 2 CPUs).
    [Fact]
    public void Slots_that_became_static_calls_say_nothing_of_those_that_are_left()
    {
        OpsLayout layout = KernelLayouts.Of("6.12", "lock.queued_spin_lock_slowpath", "lock.queued_spin_unlock", "irq.safe_halt");
        SlotTargets targets = KernelLayouts.Targets("6.12");

        Backend kvm = KvmBackend.Create(layout, 64, targets);
        Assert.Equal(("kvm_wait", "kvm_kick_cpu"), (kvm["lock.wait"].TargetName, kvm["lock.kick"].TargetName));
        Backend hyperV = HyperVBackend.Create(layout, 64, targets);
        Assert.Equal(("hv_qlock_wait", "hv_qlock_kick", "__raw_callee_save_hv_vcpu_is_preempted"),
            (hyperV["lock.wait"].TargetName, hyperV["lock.kick"].TargetName, hyperV["lock.vcpu_is_preempted"].TargetName));
        Assert.Equal("tdx_halt", TdxBackend.Create(layout, 64, targets)["irq.halt"].TargetName);
    }

    [Fact]
    public void Without_the_feature_such_slots_stay_native()
    {
        OpsLayout layout = KernelLayouts.Of("6.12", "lock.queued_spin_lock_slowpath", "lock.queued_spin_unlock");
        Backend kvm = KvmBackend.Create(layout, 64, KernelLayouts.Targets("6.12"), new KvmOptions { MultipleCpus = false });
        Assert.Equal((OperationKind.Nop, OperationKind.Nop), (kvm["lock.wait"].Kind, kvm["lock.kick"].Kind));
    }

    private static string Changed(string kernel, Func<OpsLayout, SlotTargets, Backend> create)
    {
        OpsLayout layout = KernelLayouts.Of(kernel);
        Backend native = NativeBackend.Create(layout, 64, KernelLayouts.Targets(kernel));
        Backend guest = create(layout, KernelLayouts.Targets(kernel));
        return string.Join(' ',
            layout.Slots.Where(s => guest[s.Index].Target != native[s.Index].Target).Select(s => s.Name).Order(StringComparer.Ordinal));
    }
}
