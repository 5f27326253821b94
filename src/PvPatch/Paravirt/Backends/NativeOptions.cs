namespace PvPatch.Paravirt;

/// <summary>What kernels disagree on about the native backend. The defaults follow the layout, and are right for the kernels named.</summary>
public sealed record NativeOptions
{
    /// <summary>
    /// Whether <c>cpu.iret</c> has a body. <see langword="null"/>: in 32-bit code always; in 64-bit code where the layout has
    /// <c>cpu.read_tsc</c>, as the kernels 2.6.25 to 3.6 and the standard layout do, and those of 4.8, 5.10 and later do not. 64-bit kernels that
    /// have both read_tsc and an iret they do not inline (late 3.x to 4.2) need <see langword="false"/>.
    /// </summary>
    public bool? InlineInterruptReturn { get; init; }

    /// <summary>
    /// Whether the 64-bit body of <c>lock.vcpu_is_preempted</c> is <c>xor rax,rax</c> (6.1, 6.12) and not <c>xor eax,eax</c> (5.10, 7.2). <see langword="null"/>:
    /// as the layout has it, by <c>cpu.io_delay</c> without <c>init.patch</c>.
    /// </summary>
    public bool? WideVcpuIsPreempted { get; init; }

    /// <summary>
    /// Offset in bytes from the gs base at which the user's stack pointer was saved on system call entry, for the body of
    /// <c>cpu.irq_enable_syscall_ret</c> (2.6.25, 2.6.26). The default is <c>oldrsp</c> of those kernels' per-CPU area.
    /// </summary>
    public int SavedUserStackOffset { get; init; } = 24;

    /// <summary>Whether the CPU has LKGS: <c>cpu.load_gs_index</c> then holds <c>native_lkgs</c> where that is known (6.12).</summary>
    public bool HasLkgs { get; init; }
}
