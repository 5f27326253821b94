using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Tests.Backends;

/// <summary>Layouts of kernels and symbol tables to go with them.</summary>
internal static class KernelLayouts
{
    /// <summary>
    /// The layout of one of the kernels of <see cref="KernelSlotTable"/>, or of one after it that has made static calls of some slots.
    /// </summary>
    public static OpsLayout Of(string kernel, params string[] without) => OpsLayout.Create(
        b =>
        {
            IEnumerable<KernelSlot> slots = KernelSlotTable.Of(kernel).Where(s => !without.Contains(s.Name));
            foreach (IGrouping<string, KernelSlot> table in slots.GroupBy(s => s.Name.Split('.')[0]))
            {
                b.Table(
                    table.Key,
                    t =>
                    {
                        foreach (KernelSlot slot in table)
                        {
                            t.Slot(
                                slot.Name[(table.Key.Length + 1)..], KindOf(slot.Name), slot.CalleeSave ? CallConvention.CalleeSave : null);
                        }
                    },
                    CallConvention.KernelSysV);
            }
        },
        kernel);

    /// <summary>The one struct without tables of 2.6.22, as far as backends have something to say of it.</summary>
    public static OpsLayout WithoutTables { get; } = OpsLayout.Create(
        static b => b.Table(
            "",
            static t => t
                .Slot("paravirt_enabled", SlotKind.Data).Slot("patch", SlotKind.Data)
                .Slot("save_fl").Slot("restore_fl").Slot("irq_disable").Slot("irq_enable").Slot("save_fl_irq_disable")
                .Slot("read_cr3").Slot("set_pte").Slot("pte_val").Slot("pmd_val").Slot("set_lazy_mode")
                .Slot("irq_enable_sysexit", SlotKind.Jump).Slot("iret", SlotKind.Jump),
            CallConvention.I386RegParm),
        "2.6.22");

    /// <summary>An address for a symbol: any, but always the same one and no other's.</summary>
    public static Dictionary<string, VirtualAddress> Symbols(ulong start, IEnumerable<string> names)
    {
        var symbols = new Dictionary<string, VirtualAddress>();
        foreach (string name in names.Where(n => n != "NULL"))
        {
            symbols.TryAdd(name, start + (0x40 * (ulong)symbols.Count));
        }

        return symbols;
    }

    /// <summary>Every symbol that native, Xen and other guests of a kernel need.</summary>
    public static Dictionary<string, VirtualAddress> Symbols(string kernel) => Symbols(
        0xffffffff81000000,
        KernelSlotTable.Of(kernel).SelectMany(s => (string[])[s.Native, s.Xen]).Concat(GuestSymbols));

    public static SlotTargets Targets(string kernel) => new(Symbols(kernel));

    private static string[] GuestSymbols =>
    [
        "kvm_io_delay", "kvm_steal_clock", "kvm_sched_clock_read", "kvm_flush_tlb_multi", "kvm_flush_tlb_others", "tlb_remove_table",
        "kvm_wait", "kvm_kick_cpu", "__raw_callee_save___kvm_vcpu_is_preempted", "kvm_sev_hc_page_enc_status",
        "read_hv_sched_clock_tsc", "read_hv_sched_clock_msr", "hyperv_flush_tlb_multi", "hyperv_flush_tlb_others",
        "hv_qlock_wait", "hv_qlock_kick", "__raw_callee_save_hv_vcpu_is_preempted",
        "vmware_sched_clock", "vmware_steal_clock", "tdx_safe_halt", "tdx_halt",
    ];

    private static SlotKind KindOf(string name) => name switch
    {
        "init.patch" => SlotKind.Data,
        "cpu.iret" or "cpu.usergs_sysret64" => SlotKind.Jump,
        _ => SlotKind.Call,
    };
}
