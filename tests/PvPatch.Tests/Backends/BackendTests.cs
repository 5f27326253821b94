using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Tests.Backends;

/// <summary>What the backends share: targets, layouts without tables, missing functions, options that are not possible.</summary>
public sealed class BackendTests
{
    [Fact]
    public void Without_targets_bodies_nops_and_identities_remain()
    {
        Backend native = NativeBackend.Create(StandardLayout.X64, 64, SlotTargets.None);
        Assert.Equal(OperationKind.Inline, native["irq.irq_disable"].Kind);
        Assert.Null(native["irq.irq_disable"].Target);
        Assert.Equal(OperationKind.Nop, native["mmu.activate_mm"].Kind);
        Assert.Equal(OperationKind.Identity64, native["mmu.pte_val"].Kind);
        Assert.Equal(OperationKind.Missing, native["mmu.set_pte"].Kind);
    }

    [Fact]
    public void Page_table_entries_without_pae_are_32_bits_wide()
    {
        OpsLayout flat = OpsLayout.Create(b => b.Table("mmu", t => t.Slot("pte_val").Slot("set_pte")));
        Assert.Equal(OperationKind.Identity32, NativeBackend.Create(flat, 32, SlotTargets.None)["mmu.pte_val"].Kind);
        Assert.Equal(OperationKind.Identity64, NativeBackend.Create(flat, 64, SlotTargets.None)["mmu.pte_val"].Kind);
        Assert.Equal(OperationKind.Identity64, NativeBackend.Create(StandardLayout.I386, 32, SlotTargets.None)["mmu.pte_val"].Kind);
    }

    [Fact]
    public void Before_identities_had_a_function_of_their_own_the_native_one_is_the_target()
    {
        var targets = new SlotTargets(KernelLayouts.Symbols(0xc0100000, ["native_pte_val"]));
        Operation operation = NativeBackend.Create(StandardLayout.I386, 32, targets)["mmu.pte_val"];
        Assert.Equal((OperationKind.Identity64, "native_pte_val"), (operation.Kind, operation.TargetName));
    }

    [Fact]
    public void A_layout_without_tables_answers_to_the_later_names()
    {
        var symbols = KernelLayouts.Symbols(0xc0100000, ["native_set_pte", "native_nop", "xen_set_pte", "hypercall_page"]);
        Backend native = NativeBackend.Create(KernelLayouts.WithoutTables, 32, new SlotTargets(symbols));
        Assert.Equal(OperationKind.Inline, native["irq_disable"].Kind);
        Assert.Equal(OperationKind.Inline, native["iret"].Kind);
        Assert.Equal(symbols["native_set_pte"], native["set_pte"].Target);
        Assert.Equal((OperationKind.Nop, "native_nop"), (native["set_lazy_mode"].Kind, native["set_lazy_mode"].TargetName));
        Assert.Equal(
            symbols["xen_set_pte"], XenBackend.Create(KernelLayouts.WithoutTables, 32, new SlotTargets(symbols))["set_pte"].Target);
    }

    [Fact]
    public void The_first_xen_returned_through_the_hypercall_page()
    {
        var targets = new SlotTargets(KernelLayouts.Symbols(0xc0100000, ["hypercall_page"]));
        Operation iret = XenBackend.Create(StandardLayout.I386, 32, targets)["cpu.iret"];
        Assert.Equal(OperationKind.Jump, iret.Kind);
        Assert.Equal(0xc0100000UL + 0x2e0, iret.Target!.Value.Value); // 32 bytes an entry, iret is hypercall 23
    }

    [Fact]
    public void Xen_never_falls_back_on_a_native_function_a_guest_may_not_use()
    {
        var targets = new SlotTargets(KernelLayouts.Symbols(0x1000, ["native_set_pte", "native_read_tsc", "native_wbinvd"]));
        Backend xen = XenBackend.Create(StandardLayout.X64, 64, targets);
        Assert.Equal(OperationKind.Missing, xen["mmu.set_pte"].Kind);
        Assert.Equal((OperationKind.Call, "native_read_tsc"), (xen["cpu.read_tsc"].Kind, xen["cpu.read_tsc"].TargetName));
        Assert.Equal((OperationKind.Call, "native_wbinvd"), (xen["cpu.wbinvd"].Kind, xen["cpu.wbinvd"].TargetName));
    }

    [Fact]
    public void Xen_without_placed_vcpu_info_calls_thunks_and_has_no_inline_forms()
    {
        var targets = new SlotTargets(
            KernelLayouts.Symbols(0x1000, ["xen_save_fl_direct", "xen_save_fl", "__raw_callee_save_xen_save_fl"]));
        var direct = new XenDirectBodies { VcpuInfo = 0x6000, CheckEvents = 0x2000 };
        Operation placed = XenBackend.Create(StandardLayout.X64, 64, targets, new XenOptions { DirectBodies = direct })["irq.save_fl"];
        Assert.Equal((OperationKind.Inline, "xen_save_fl_direct", true), (placed.Kind, placed.TargetName, placed.DefaultsWhereTooLong));
        Operation not = XenBackend.Create(
            StandardLayout.X64, 64, targets, new XenOptions { DirectBodies = direct, VcpuInfoPlaced = false })["irq.save_fl"];
        Assert.Equal((OperationKind.Call, "__raw_callee_save_xen_save_fl"), (not.Kind, not.TargetName));
    }

    [Theory]
    [InlineData(64, 0x6000, nameof(XenDirectForm.AndWord))]
    [InlineData(64, 0x7fffffff, nameof(XenDirectForm.StoreAndTest))]
    [InlineData(32, 0xffffffff, nameof(XenDirectForm.StoreAndTest))]
    [InlineData(32, 0x100000000, nameof(XenDirectForm.StoreAndTest))]
    public void Xen_refuses_forms_and_data_that_cannot_be(int bitness, ulong vcpuInfo, string form)
    {
        var options = new XenOptions { DirectBodies = new XenDirectBodies { VcpuInfo = vcpuInfo, Form = Enum.Parse<XenDirectForm>(form) } };
        Assert.Throws<ArgumentException>(() => XenBackend.Create(StandardLayout.For(bitness), bitness, SlotTargets.None, options));
    }

    [Fact]
    public void What_the_image_holds_goes_before_symbols()
    {
        OpsLayout layout = KernelLayouts.Of("6.1");
        Dictionary<string, VirtualAddress> symbols = KernelLayouts.Symbols("6.1");
        var targets = new SlotTargets(symbols).WithNativeSlots(new Dictionary<string, VirtualAddress>
        {
            ["mmu.set_pte"] = 0x5000,
            ["mmu.exit_mmap"] = 0x6000,
            ["cpu.io_delay"] = symbols["_paravirt_nop"],
            ["cpu.load_gdt"] = 0,
            ["irq.save_fl"] = 0,
            ["mmu.pte_val"] = symbols["_paravirt_ident_64"],
            ["cpu.cpuid"] = symbols["native_cpuid"],
        });
        Backend native = NativeBackend.Create(layout, 64, targets);
        Assert.Equal((OperationKind.Call, (VirtualAddress?)0x5000UL), (native["mmu.set_pte"].Kind, native["mmu.set_pte"].Target));
        Assert.Equal(OperationKind.Call, native["mmu.exit_mmap"].Kind); // not the function that does nothing
        Assert.Equal(OperationKind.Nop, native["cpu.io_delay"].Kind);
        Assert.Equal(OperationKind.Missing, native["cpu.load_gdt"].Kind);
        Assert.Equal(OperationKind.Inline, native["irq.save_fl"].Kind); // by slot, whatever the pointer
        Assert.Equal(OperationKind.Identity64, native["mmu.pte_val"].Kind);
        Assert.Equal("native_cpuid", native["cpu.cpuid"].TargetName);
    }

    [Fact]
    public void A_cpu_with_lkgs_changes_what_the_image_holds()
    {
        var targets = new SlotTargets(KernelLayouts.Symbols(0x1000, ["native_load_gs_index", "native_lkgs"]))
            .WithNativeSlots([new("cpu.load_gs_index", 0x1000)]);
        Assert.Equal("native_load_gs_index", NativeBackend.Create(StandardLayout.X64, 64, targets)["cpu.load_gs_index"].TargetName);
        var lkgs = new NativeOptions { HasLkgs = true };
        Assert.Equal("native_lkgs", NativeBackend.Create(StandardLayout.X64, 64, targets, lkgs)["cpu.load_gs_index"].TargetName);
    }

    [Fact]
    public void Plain_msr_slots_held_the_safe_functions_until_those_got_slots()
    {
        var targets = new SlotTargets(KernelLayouts.Symbols(0x1000, ["native_read_msr", "native_read_msr_safe"]));
        OpsLayout old = OpsLayout.Create(b => b.Table("cpu", t => t.Slot("read_msr")));
        Assert.Equal("native_read_msr_safe", NativeBackend.Create(old, 64, targets)["cpu.read_msr"].TargetName);
        Assert.Equal("native_read_msr", NativeBackend.Create(StandardLayout.X64, 64, targets)["cpu.read_msr"].TargetName);
    }

    [Fact]
    public void Lguest_replaces_what_it_must_and_dropped_two_bodies()
    {
        var targets = new SlotTargets(KernelLayouts.Symbols(
            0xc0100000,
            ["lguest_data", "lg_irq_enable", "__raw_callee_save_irq_disable", "lguest_iret", "native_set_pte", "native_io_delay",
                "lguest_load_tr_desc"]));
        Backend lguest = LguestBackend.Create(StandardLayout.I386, targets);
        Assert.Equal((OperationKind.Inline, true), (lguest["irq.irq_disable"].Kind, lguest["irq.irq_disable"].DefaultsWhereTooLong));
        Assert.Equal("__raw_callee_save_irq_disable", lguest["irq.irq_disable"].TargetName);
        Assert.Equal((OperationKind.Call, "lg_irq_enable"), (lguest["irq.irq_enable"].Kind, lguest["irq.irq_enable"].TargetName));
        Assert.Equal((OperationKind.Jump, "lguest_iret"), (lguest["cpu.iret"].Kind, lguest["cpu.iret"].TargetName));
        Assert.Equal(OperationKind.Call, lguest["cpu.load_tr_desc"].Kind); // empty, but not the function that stands for nothing
        Assert.Equal(OperationKind.Missing, lguest["mmu.set_pte"].Kind);
        Assert.Equal("native_io_delay", lguest["cpu.io_delay"].TargetName);
        Assert.Null(lguest["mmu.write_cr3"].Body);
        Backend older = LguestBackend.Create(StandardLayout.I386, targets, new LguestOptions { InlineEnableAndRestore = true });
        Assert.Equal(OperationKind.Inline, older["irq.irq_enable"].Kind);
        Assert.Throws<ArgumentException>(
            () => LguestBackend.Create(StandardLayout.I386, targets, new LguestOptions { LguestData = 0x1_0000_0000 }));
    }

    [Fact]
    public void Vmi_patches_what_the_rom_answers_for_and_leaves_the_rest()
    {
        var answers = new Dictionary<VmiCall, VmiRelocation>
        {
            [VmiCall.DisableInterrupts] = new(VmiRelocationKind.CallRel, 0xfc001a20),
            [VmiCall.InterruptReturn] = new(VmiRelocationKind.JumpRel, 0xfc001a40),
            [VmiCall.EnableInterrupts] = new(VmiRelocationKind.Nop, 0),
        };
        var options = new VmiOptions
        {
            GetRelocation = call => answers.GetValueOrDefault(call),
            Slots = new Dictionary<string, VmiRelocation> { ["cpu.cpuid"] = new(VmiRelocationKind.CallRel, 0xfc002000) },
        };
        var targets = new SlotTargets(KernelLayouts.Symbols(0xc0100000, ["vmi_set_pte", "native_set_pte", "native_read_tsc"]));
        Backend vmi = VmiBackend.Create(StandardLayout.I386, targets, options);
        string[] patched = [
            .. vmi.Layout.Slots.Where(s => !vmi[s.Index].IsLeftAloneByBackend).Select(s => s.Name).Order(StringComparer.Ordinal)];
        Assert.Equal(["cpu.iret", "irq.irq_disable", "irq.irq_enable"], patched);
        Assert.Equal(OperationKind.Nop, vmi["irq.irq_enable"].Kind);
        Assert.Equal(0xfc002000UL, vmi["cpu.cpuid"].Target!.Value.Value);
        Assert.Equal("vmi_set_pte", vmi["mmu.set_pte"].TargetName);
        Assert.Equal(OperationKind.Call, vmi["cpu.read_tsc"].Kind);
    }

    [Fact]
    public void Vmi_refuses_answers_that_are_none()
    {
        var kind = new VmiOptions { GetRelocation = static _ => new VmiRelocation((VmiRelocationKind)4, 0) };
        var far = new VmiOptions { GetRelocation = static _ => new VmiRelocation(VmiRelocationKind.CallRel, 0x1_0000_0000) };
        Assert.Throws<ArgumentException>(() => VmiBackend.Create(StandardLayout.I386, SlotTargets.None, kind));
        Assert.Throws<ArgumentException>(() => VmiBackend.Create(StandardLayout.I386, SlotTargets.None, far));
    }

    [Theory]
    [InlineData(0xaabbcc01_fc001a20UL, true, VmiRelocationKind.CallRel, 0xfc001a20UL)]
    [InlineData(0x00000003_00000000UL, true, VmiRelocationKind.Nop, 0UL)]
    [InlineData(0x00000004_fc001a20UL, false, VmiRelocationKind.None, 0UL)]
    public void A_rom_answer_is_an_address_and_a_kind(ulong value, bool known, VmiRelocationKind kind, ulong target)
    {
        Assert.Equal(known, VmiRelocation.TryDecode(value, out VmiRelocation relocation));
        Assert.Equal((kind, target), (relocation.Kind, relocation.Target.Value));
    }

    [Theory]
    [InlineData(64, "native xen kvm")]
    [InlineData(32, "native xen kvm lguest vmi")]
    public void The_registry_has_the_backends_of_its_bitness(int bitness, string names)
    {
        OpsRegistry registry = StandardBackends.CreateRegistry(bitness, SlotTargets.None);
        Assert.Equal(names, string.Join(' ', registry.Backends));
        Assert.Same(StandardLayout.For(bitness), registry.Layout);
    }

    [Fact]
    public void A_layout_with_none_of_the_names_gets_backends_without_operations()
    {
        OpsLayout other = OpsLayout.Create(b => b.Table("mem", t => t.Slot("load32")));
        OpsRegistry registry = StandardBackends.CreateRegistry(other, 64, SlotTargets.None);
        Assert.All(registry.Backends, b => Assert.Equal(OperationKind.Missing, b["mem.load32"].Kind));
    }

    [Fact]
    public void Address_zero_is_no_function()
    {
        var targets = new SlotTargets(static _ => VirtualAddress.Zero);
        Assert.Null(targets.Find("native_set_pte"));
        Assert.Equal(OperationKind.Missing, NativeBackend.Create(StandardLayout.X64, 64, targets)["mmu.set_pte"].Kind);
    }
}
