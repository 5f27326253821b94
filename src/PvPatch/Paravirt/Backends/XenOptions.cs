namespace PvPatch.Paravirt;

/// <summary>What Xen paravirtual guests disagree on. The defaults are a 64-bit guest of 4.14 or later with several CPUs.</summary>
public sealed record XenOptions
{
    /// <summary>
    /// The inline forms of the interrupt operations that kernels from 2.6.23 until about 4.13 had; <see langword="null"/> for later kernels, which only
    /// call. Not used where <see cref="VcpuInfoPlaced"/> is <see langword="false"/>.
    /// </summary>
    public XenDirectBodies? DirectBodies { get; init; }

    /// <summary>
    /// Whether the hypervisor let the guest place its vcpu_info in per-CPU memory. If so the interrupt slots and <c>mmu.read_cr2</c> hold
    /// the <c>_direct</c> functions, else thunks of the plain ones. From 6.1 on it always did.
    /// </summary>
    public bool VcpuInfoPlaced { get; init; } = true;

    /// <summary>Whether the lock slots are Xen's: more than one possible CPU, and no <c>nopvspin</c>. Otherwise they are native.</summary>
    public bool ParavirtSpinlocks { get; init; } = true;

    /// <summary>
    /// Whether the hypervisor keeps accessed and dirty bits over page-table updates (mmu_pt_update_preserve_ad), so that the slots
    /// <c>mmu.ptep_modify_prot_*</c> are Xen's. From 6.1 on they always are.
    /// </summary>
    public bool PreservesAccessedDirty { get; init; } = true;

    /// <summary>
    /// Whether lock slots that stay native keep their bodies. <see langword="null"/>: where the layout has no <c>init.patch</c>. Kernels
    /// with that hook give Xen one that knows no native bodies; from 6.1 on the bodies are alternatives that look at the lock
    /// functions and not at the hypervisor.
    /// </summary>
    public bool? InlineNativeLocks { get; init; }

    /// <summary>
    /// Whether slots that Xen does not speak of keep their native functions. Kernels to 6.12 put whole tables of Xen's in place, which leaves such
    /// slots null; 7.2 (measured) puts in slot by slot.
    /// </summary>
    public bool KeepsNativeSlots { get; init; }
}

/// <summary>The form of Xen's inline interrupt operations.</summary>
public enum XenDirectForm
{
    /// <summary>32-bit, seen in 2.6.24: unmasking is an <c>and</c> over mask and pending byte together.</summary>
    AndWord,

    /// <summary>Seen in 2.6.32: unmasking is a store, then a test. In restore_fl the jump over the call is the wrong way round (<c>je</c>).</summary>
    StoreAndTest,

    /// <summary>Seen in 3.6: as <see cref="StoreAndTest"/>, with the jump in restore_fl put right (<c>jne</c>).</summary>
    StoreAndTestFixed,
}

/// <summary>Where Xen's inline interrupt operations find their data.</summary>
public sealed record XenDirectBodies
{
    /// <summary>
    /// The address of vcpu_info as instructions name it: the offset in the per-CPU segment where <see cref="PerCpu"/> holds, else the data's
    /// run address. Its byte 0 says that an event is pending, byte 1 masks events. In 64-bit code it must lie within 2 GiB of 0.
    /// </summary>
    public required VirtualAddress VcpuInfo { get; init; }

    /// <summary>
    /// The run address of <c>check_events</c>, which delivers pending events and preserves all registers; <see langword="null"/> to
    /// ask the targets. Without it the two operations that call it have no body.
    /// </summary>
    public VirtualAddress? CheckEvents { get; init; }

    /// <summary>Which kernels' form.</summary>
    public XenDirectForm Form { get; init; } = XenDirectForm.StoreAndTestFixed;

    /// <summary>Whether the data is per CPU, reached through fs (32-bit) or gs (64-bit), as in kernels for several CPUs.</summary>
    public bool PerCpu { get; init; } = true;
}
