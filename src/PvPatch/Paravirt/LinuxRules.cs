using System.Diagnostics.CodeAnalysis;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>
/// What each Linux did at its sites, as one record an era. Each is written as the difference to the era before, which is how the
/// patch functions changed (<c>arch/x86/kernel/paravirt*.c</c>, <c>alternative.c</c>).
/// </summary>
public static class LinuxRules
{
    private static readonly HashSet<string> s_none = [];

    /// <summary>2.6.20 and 2.6.21: i386 only, seven types; a body by type or nothing at all.</summary>
    public static PatchRules Linux2620 { get; } = new()
    {
        Name = "linux-2.6.20",
        HasDefault = false,
        InlinesIdentity32 = false,
        InlinesIdentity64 = false,
        Inline = InlineRule.BySlot,
        BodyTooLong = TooLongRule.LeaveAlone,
        ChecksTargetClobbers = false,
        AnyClobbers32 = KernelClobberEncoding.I386.Any,
        AnyClobbers64 = KernelClobberEncoding.X64Before2630.Any,
        ChecksBodyClobbers = false,
        UsesThunks = false,
        RequiresIndirectCall = false,
        UsesBackendPatchFunction = true,
        JumpSlots = new HashSet<string> { "iret", "irq_enable_sysexit", "cpu.iret", "cpu.irq_enable_sysexit" },
    };

    /// <summary>2.6.21: as 2.6.20 (without its debugging aid).</summary>
    public static PatchRules Linux2621 { get; } = Linux2620 with { Name = "linux-2.6.21" };

    /// <summary>2.6.22: the default rule appears (null, nop, jump, call with the clobber test).</summary>
    public static PatchRules Linux2622 { get; } = Linux2621 with { Name = "linux-2.6.22", HasDefault = true };

    /// <summary>2.6.23: as 2.6.22, through a buffer.</summary>
    public static PatchRules Linux2623 { get; } = Linux2622 with { Name = "linux-2.6.23" };

    /// <summary>2.6.24: slots in six tables.</summary>
    public static PatchRules Linux2624 { get; } = Linux2623 with { Name = "linux-2.6.24" };

    /// <summary>2.6.25 and 2.6.26: x86-64 too.</summary>
    public static PatchRules Linux2625 { get; } = Linux2624 with
    {
        Name = "linux-2.6.25",
        JumpSlots = new HashSet<string> { "cpu.iret", "cpu.irq_enable_syscall_ret" },
    };

    /// <summary>2.6.27 to 2.6.29.</summary>
    public static PatchRules Linux2627 { get; } = Linux2625 with
    {
        Name = "linux-2.6.27",
        JumpSlots = new HashSet<string> { "cpu.iret", "cpu.irq_enable_sysexit", "cpu.usergs_sysret32", "cpu.usergs_sysret64" },
    };

    /// <summary>2.6.30 to 4.1: identities are recognised; RSI and RDI change places in the clobber word.</summary>
    public static PatchRules Linux2630 { get; } = Linux2627 with
    {
        Name = "linux-2.6.30",
        InlinesIdentity32 = true,
        InlinesIdentity64 = true,
        AnyClobbers32 = KernelClobberEncoding.I386Since2630.Any,
        AnyClobbers64 = KernelClobberEncoding.X64.Any,
    };

    /// <summary>4.2 to 4.18: queued spinlocks, whose bodies are used only while the slot holds the native function.</summary>
    public static PatchRules Linux42 { get; } = Linux2630 with
    {
        Name = "linux-4.2",
        ByPointerSlots = new HashSet<string> { "lock.queued_spin_unlock", "lock.vcpu_is_preempted" },
        JumpSlots = new HashSet<string> { "cpu.iret", "cpu.usergs_sysret64", "cpu.irq_enable_sysexit", "cpu.usergs_sysret32" },
    };

    /// <summary>4.18 with the backports of 4.19, as RHEL 8 has it: the clobber word is no longer looked at.</summary>
    public static PatchRules Linux418Backports { get; } = Linux42 with
    {
        Name = "linux-4.18rh",
        AnyClobbers32 = RegisterSet.None, // no longer looked at
        AnyClobbers64 = RegisterSet.None,
        JumpSlots = new HashSet<string> { "cpu.iret", "cpu.usergs_sysret64" },
    };

    /// <summary>4.19 and 4.20 to 5.9: as the backports; from 4.20 on one table, <c>pv_ops</c>.</summary>
    public static PatchRules Linux420 { get; } = Linux418Backports with { Name = "linux-4.20" };

    /// <summary>5.10 (to 5.12): only the 64-bit identity is left; what does not fit stops the kernel.</summary>
    public static PatchRules Linux510 { get; } = Linux420 with
    {
        Name = "linux-5.10",
        InlinesIdentity32 = false,
        BodyTooLong = TooLongRule.Stop,
        CallTooLong = TooLongRule.Stop,
    };

    /// <summary>
    /// 5.13 to 6.7, read in 6.1: no patch functions any more, a null slot calls BUG; inline forms come from alternatives laid over
    /// afterwards.
    /// </summary>
    public static PatchRules Linux61 { get; } = Linux510 with
    {
        Name = "linux-6.1",
        MissingCallsBug = true,
        InlinesIdentity64 = false,
        Inline = InlineRule.Never,
        ByPointerSlots = s_none,
        JumpSlots = s_none,
        JumpTooLong = TooLongRule.Stop,
        Nops64 = NopStyle.Linux61X64,
        Nops32 = NopStyle.Linux61X86,
    };

    /// <summary>6.8 and later, read in 6.12: the paravirt sites are alternatives themselves; as 6.1, with nops of up to 11 bytes.</summary>
    public static PatchRules Linux612 { get; } = Linux61 with
    {
        Name = "linux-6.12",
        Nops64 = NopStyle.Linux612X64,
        Nops32 = NopStyle.Linux612X86,
    };

    /// <summary>All eras, oldest first.</summary>
    public static IReadOnlyList<PatchRules> All { get; } =
    [
        Linux2620, Linux2621, Linux2622, Linux2623, Linux2624, Linux2625, Linux2627, Linux2630, Linux42, Linux418Backports, Linux420,
        Linux510, Linux61, Linux612,
    ];

    /// <summary>Finds rules by name.</summary>
    /// <param name="name">A name from <see cref="All"/>, or <c>Default</c>.</param>
    /// <param name="rules">The rules.</param>
    /// <returns>Whether there are any.</returns>
    public static bool TryGet(string name, [NotNullWhen(true)] out PatchRules? rules)
    {
        rules = All.Append(PatchRules.Default).FirstOrDefault(r => r.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
        return rules is not null;
    }
}
