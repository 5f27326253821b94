using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Tests.Backends;

/// <summary>What 64-bit kernels have in their slots, on bare hardware, under Xen and under KVM.</summary>
public sealed class KernelTargetsTests
{
    public static TheoryData<string> Kernels => [.. KernelSlotTable.Kernels];

    [Theory]
    [MemberData(nameof(Kernels))]
    public void Native_slots_hold_the_functions_of_the_kernel(string kernel)
    {
        Backend native = NativeBackend.Create(KernelLayouts.Of(kernel), 64, KernelLayouts.Targets(kernel));
        CheckTargets(kernel, native, s => s.Native);
    }

    [Theory]
    [MemberData(nameof(Kernels))]
    public void Xen_slots_hold_the_functions_of_the_kernel(string kernel)
    {
        // The table gives 5.10 on a hypervisor that does not advertise the feature.
        var options = new XenOptions { PreservesAccessedDirty = kernel != "5.10" };
        Backend xen = XenBackend.Create(KernelLayouts.Of(kernel), 64, KernelLayouts.Targets(kernel), options);
        CheckTargets(kernel, xen, s => s.Xen);
        Assert.DoesNotContain(xen.Operations, o => o.Kind == OperationKind.Inline);
        string[] missing = [.. KernelSlotTable.Of(kernel).Where(s => s.Xen == "NULL").Select(s => s.Name)];
        Assert.Equal(missing.Order(), xen.Layout.Slots.Where(s => xen[s.Index].Kind == OperationKind.Missing).Select(s => s.Name).Order());
    }

    [Fact]
    public void Xen_functions_for_protection_changes_need_the_hypervisors_promise()
    {
        var symbols = KernelLayouts.Symbols(0x1000, ["__ptep_modify_prot_start", "xen_ptep_modify_prot_start"]);
        OpsLayout layout = KernelLayouts.Of("5.10");
        var targets = new SlotTargets(symbols);
        Assert.Equal("xen_ptep_modify_prot_start", XenBackend.Create(layout, 64, targets)["mmu.ptep_modify_prot_start"].TargetName);
        var without = new XenOptions { PreservesAccessedDirty = false };
        Assert.Equal("__ptep_modify_prot_start", XenBackend.Create(layout, 64, targets, without)["mmu.ptep_modify_prot_start"].TargetName);
    }

    // Which slots got an instruction on booted kernels. 6.1 and 6.12 got theirs by alternatives, identities (a move) among them.
    [Theory]
    [InlineData("5.10",
        "cpu.usergs_sysret64 cpu.wbinvd irq.irq_disable irq.irq_enable irq.restore_fl irq.save_fl lock.queued_spin_unlock "
        + "lock.vcpu_is_preempted mmu.read_cr2 mmu.read_cr3 mmu.write_cr3")]
    [InlineData("6.1",
        "cpu.wbinvd irq.irq_disable irq.irq_enable irq.save_fl lock.queued_spin_unlock lock.vcpu_is_preempted mmu.read_cr2 "
        + "mmu.read_cr3 mmu.write_cr3")]
    [InlineData("6.12",
        "cpu.wbinvd irq.irq_disable irq.irq_enable irq.save_fl lock.queued_spin_unlock lock.vcpu_is_preempted mmu.read_cr2 "
        + "mmu.read_cr3 mmu.write_cr3")]
    public void Native_bodies_are_those_seen_on_booted_kernels(string kernel, string slots)
    {
        Backend native = NativeBackend.Create(KernelLayouts.Of(kernel), 64, KernelLayouts.Targets(kernel));
        Assert.Equal(slots, string.Join(
            ' ', native.Layout.Slots.Where(s => native[s.Index].Body is not null).Select(s => s.Name).Order(StringComparer.Ordinal)));
    }

    [Fact]
    public void Interrupt_return_of_5_10_is_a_jump_and_has_no_body()
    {
        Backend native = NativeBackend.Create(KernelLayouts.Of("5.10"), 64, KernelLayouts.Targets("5.10"));
        Assert.Equal(OperationKind.Jump, native["cpu.iret"].Kind);
        Assert.Equal(OperationKind.Inline,
            NativeBackend.Create(native.Layout, 64, SlotTargets.None, new NativeOptions { InlineInterruptReturn = true })["cpu.iret"].Kind);
    }

    // Feature word 0x22a2 and two CPUs, as booted; the slots that changed against native.
    [Theory]
    [InlineData("5.10",
        "cpu.io_delay lock.kick lock.queued_spin_lock_slowpath lock.queued_spin_unlock lock.vcpu_is_preempted lock.wait "
        + "mmu.flush_tlb_others mmu.tlb_remove_table time.steal_clock")]
    [InlineData("6.1",
        "cpu.io_delay lock.kick lock.queued_spin_lock_slowpath lock.queued_spin_unlock lock.vcpu_is_preempted lock.wait "
        + "mmu.flush_tlb_multi mmu.tlb_remove_table")]
    [InlineData("6.12",
        "cpu.io_delay lock.kick lock.queued_spin_lock_slowpath lock.queued_spin_unlock lock.vcpu_is_preempted lock.wait "
        + "mmu.flush_tlb_multi mmu.tlb_remove_table")]
    public void Kvm_changes_the_slots_seen_on_booted_kernels(string kernel, string slots) =>
        Assert.Equal(slots, ChangedByKvm(kernel, new KvmOptions { Features = (KvmFeatures)0x22a2 }));

    [Theory]
    [InlineData("5.10")]
    [InlineData("6.1")]
    public void Kvm_without_features_is_native(string kernel) =>
        Assert.Equal("", ChangedByKvm(kernel, new KvmOptions { Features = KvmFeatures.None }));

    [Theory]
    [InlineData("5.10", "cpu.io_delay time.steal_clock")]
    [InlineData("6.1", "cpu.io_delay lock.vcpu_is_preempted")]
    public void Kvm_that_promises_cpus_of_their_own_keeps_native_locks_and_flushes(string kernel, string slots)
    {
        var options = new KvmOptions { Features = (KvmFeatures)0x22a2, RealtimeHint = true };
        Assert.Equal(slots, ChangedByKvm(kernel, options));
    }

    [Theory]
    [InlineData(false, false, false)]
    [InlineData(true, true, false)]
    public void Kvm_locks_need_several_cpus_and_no_nopvspin(bool multipleCpus, bool noPvSpin, bool changed)
    {
        var options = new KvmOptions { Features = KvmFeatures.PvUnhalt, MultipleCpus = multipleCpus, NoPvSpin = noPvSpin };
        Assert.Equal(changed, ChangedByKvm("6.1", options).Contains("lock.", StringComparison.Ordinal));
    }

    [Fact]
    public void Kvm_puts_all_of_a_queued_lock_or_nothing_of_it()
    {
        Dictionary<string, VirtualAddress> symbols = KernelLayouts.Symbols("6.1");
        symbols.Remove("kvm_kick_cpu");
        Backend kvm = KvmBackend.Create(KernelLayouts.Of("6.1"), 64, new SlotTargets(symbols));
        Assert.Equal("native_queued_spin_lock_slowpath", kvm["lock.queued_spin_lock_slowpath"].TargetName);
        Assert.Equal(kvm["lock.queued_spin_unlock"].StandsFor, kvm["lock.queued_spin_unlock"].Target);
    }

    [Fact]
    public void A_lock_body_stands_for_the_native_function_whatever_kvm_puts_there()
    {
        Dictionary<string, VirtualAddress> symbols = KernelLayouts.Symbols("5.10");
        OpsLayout layout = KernelLayouts.Of("5.10");
        VirtualAddress nativeUnlock = symbols["__raw_callee_save___native_queued_spin_unlock"];
        Operation native = NativeBackend.Create(layout, 64, new SlotTargets(symbols))["lock.queued_spin_unlock"];
        Operation kvm = KvmBackend.Create(layout, 64, new SlotTargets(symbols))["lock.queued_spin_unlock"];
        Assert.Equal((nativeUnlock, nativeUnlock), (native.StandsFor, native.Target));
        Assert.Equal((nativeUnlock, symbols["__raw_callee_save___pv_queued_spin_unlock"]), (kvm.StandsFor, kvm.Target));
        Assert.Same(native.Body, kvm.Body);
    }

    // Booted under Xen without paravirtual locks, 6.1 inlined unlock and preempted; a Xen patch hook (5.10) knows no native bodies.
    [Theory]
    [InlineData("5.10", OperationKind.Call)]
    [InlineData("6.1", OperationKind.Inline)]
    public void Locks_that_stay_native_under_xen_are_inlined_where_no_hook_forbids_it(string kernel, OperationKind kind)
    {
        Backend xen = XenBackend.Create(
            KernelLayouts.Of(kernel), 64, KernelLayouts.Targets(kernel), new XenOptions { ParavirtSpinlocks = false });
        Assert.Equal(kind, xen["lock.queued_spin_unlock"].Kind);
        Assert.Equal("__raw_callee_save___native_queued_spin_unlock", xen["lock.queued_spin_unlock"].TargetName);
        Assert.Equal(OperationKind.Nop, xen["lock.wait"].Kind);
    }

    [Fact]
    public void Preempted_is_wide_in_6_1_and_6_12_only()
    {
        Assert.Equal(2, PreemptedLength(KernelLayouts.Of("5.10")));
        Assert.Equal(3, PreemptedLength(KernelLayouts.Of("6.1")));
        Assert.Equal(3, PreemptedLength(KernelLayouts.Of("6.12")));
        Assert.Equal(2, PreemptedLength(StandardLayout.X64));
    }

    private static int PreemptedLength(OpsLayout layout)
    {
        InlineBody body = NativeBackend.Create(layout, 64, SlotTargets.None)["lock.vcpu_is_preempted"].Body!;
        Assert.True(
            PvPatch.Machine.BodyBuilder.TryBuild(body, CallConvention.CalleeSave, 64, out PvPatch.Machine.AssembledBody? built, out _));
        return built.Bytes.Length;
    }

    private static string ChangedByKvm(string kernel, KvmOptions options)
    {
        OpsLayout layout = KernelLayouts.Of(kernel);
        Backend native = NativeBackend.Create(layout, 64, KernelLayouts.Targets(kernel));
        Backend kvm = KvmBackend.Create(layout, 64, KernelLayouts.Targets(kernel), options);
        return string.Join(
            ' ', layout.Slots.Where(s => kvm[s.Index].Target != native[s.Index].Target).Select(s => s.Name).Order(StringComparer.Ordinal));
    }

    private static void CheckTargets(string kernel, Backend backend, Func<KernelSlot, string> expected)
    {
        Dictionary<string, VirtualAddress> symbols = KernelLayouts.Symbols(kernel);
        foreach (KernelSlot slot in KernelSlotTable.Of(kernel))
        {
            string name = expected(slot);
            Operation operation = backend[slot.Name];
            if (name == "NULL")
            {
                Assert.True(operation.Kind == OperationKind.Missing, $"{slot.Name}: {operation.Kind}");
                continue;
            }

            Assert.True(operation.Target == symbols[name], $"{slot.Name}: {operation.TargetName}, expected {name}");
            OperationKind kind = name == KernelSlotTable.NopName(kernel) ? OperationKind.Nop
                : name == "_paravirt_ident_64" ? OperationKind.Identity64
                : operation.Body is not null ? OperationKind.Inline
                : backend.Layout[slot.Name].Kind == SlotKind.Jump ? OperationKind.Jump
                : OperationKind.Call;
            Assert.True(operation.Kind == kind, $"{slot.Name}: {operation.Kind}, expected {kind}");
        }
    }
}
