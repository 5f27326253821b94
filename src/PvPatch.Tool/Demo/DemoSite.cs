using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Tool.Demo;

/// <summary>Form of a site of the demo's guest.</summary>
internal enum DemoForm
{
    /// <summary>
    /// A call or jump through the ops table's address: RIP-relative in 64-bit code (ff 15 rel32), absolute in 32-bit code (ff 15 a32).
    /// </summary>
    Direct,

    /// <summary>The same with the address in the instruction, as kernels to 5.10 had it (ff 14 25 a32), 64-bit code only.</summary>
    Absolute,

    /// <summary>A call through a register that points to the slot's own table (ff 53 d8): short enough for a site of 5 bytes.</summary>
    Register,

    /// <summary>No call: a privileged instruction written by hand.</summary>
    ByHand,
}

/// <summary>One site of the demo's guest.</summary>
/// <param name="Slot">Its slot, in the standard layout.</param>
/// <param name="Budget">Its length in bytes.</param>
/// <param name="Clobbers">Registers that a patch may destroy there.</param>
/// <param name="Form">Its form.</param>
/// <param name="Traits">Its traits.</param>
internal sealed record DemoSite(
    string Slot, int Budget, RegisterSet Clobbers, DemoForm Form = DemoForm.Direct, SiteTraits Traits = SiteTraits.None)
{
    /// <summary>The sites of a guest: every budget from 5 to 16 bytes, and one of each kind that is decided differently.</summary>
    public static IReadOnlyList<DemoSite> For(int bitness)
    {
        // What a C function may destroy, and what a function with the callee-save convention may.
        RegisterSet any = (bitness == 64 ? CallConvention.KernelSysV : CallConvention.I386RegParm).DestroyedBy(bitness);
        RegisterSet few = CallConvention.CalleeSave.DestroyedBy(bitness);
        bool x64 = bitness == 64;
        return
        [
            new("irq.irq_disable", 5, few, DemoForm.Register),
            new("irq.irq_enable", 6, few),
            new("irq.save_fl", 7, few, x64 ? DemoForm.Absolute : DemoForm.Direct),
            new("irq.restore_fl", 8, few),
            new("irq.save_fl", 14, few),
            new("irq.save_fl", 8, few, Traits: SiteTraits.NoStack),
            new("irq.irq_disable", 10, RegisterSet.Flags),
            new("irq.irq_disable", 6, RegisterSet.Flags),
            new("mmu.read_cr2", 6, few),
            new("mmu.write_cr3", 9, any, x64 ? DemoForm.Absolute : DemoForm.Direct),
            new("mmu.pte_val", 6, few),
            new("mmu.make_pte", 11, few),
            new("mmu.set_pte", 12, any),
            new("mmu.set_pte_at", 10, few.Except(RegisterSet.Rdx)),
            new("mmu.set_pte", 7, RegisterSet.Flags),
            new("mmu.alloc_pte", 13, any),
            .. x64 ? [new("mmu.alloc_p4d", 15, any)] : Array.Empty<DemoSite>(),
            new("mmu.flush_tlb_multi", 16, any),
            .. x64
                ? (DemoSite[])[new("cpu.swapgs", 6, RegisterSet.None, Traits: SiteTraits.NoStack),
                    new("cpu.usergs_sysret64", 7, any, DemoForm.Absolute)]
                : [new("cpu.irq_enable_sysexit", 7, any)],
            new("cpu.iret", 6, any),
            new("cpu.clts", 6, any, DemoForm.ByHand),
            new("time.sched_clock", 6, any),
            new("lock.queued_spin_unlock", 7, few),
            new("lock.vcpu_is_preempted", 15, few),
        ];
    }
}
