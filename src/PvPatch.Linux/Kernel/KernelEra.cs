using PvPatch.Encoding;
using PvPatch.Planning;
using PvPatch.Sites.Formats;

namespace PvPatch.Linux.Kernel;

/// <summary>
/// What is particular to the kernels of one era, as data: how their site table is laid out, by which rules their sites are patched,
/// and what their alternatives do on top.
/// </summary>
public sealed record KernelEra
{
    /// <summary>The era's name.</summary>
    public required string Name { get; init; }

    /// <summary>The layout of <c>.parainstructions</c>, for 64-bit kernels.</summary>
    public required ParaInstructionsFormat SiteTable64 { get; init; }

    /// <summary>The rules of the kernel's own patcher.</summary>
    public required PatchRules Rules { get; init; }

    /// <summary>What alternatives at the addresses of sites do after the patcher; <see langword="null"/> where none are laid over.</summary>
    public AlternativeRules? Alternatives { get; init; }

    /// <summary>
    /// 5.13 to 6.7, read and measured in 6.1: slots without init and time, every pointer a call, the short forms laid over by alternatives
    /// (<c>arch/x86/kernel/alternative.c</c>, alternative_instructions: apply_paravirt first, apply_alternatives later).
    /// </summary>
    public static KernelEra Linux61 { get; } = new()
    {
        Name = "linux-6.1",
        SiteTable64 = ParaInstructionsFormat.X64Since61,
        Rules = LinuxRules.Linux61,
        Alternatives = AlternativeRules.Linux61,
    };

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>How one era's alternatives work, where they meet paravirt sites.</summary>
public sealed record AlternativeRules
{
    /// <summary>The number of the feature "runs as a Xen PV guest" (X86_FEATURE_XENPV, word 8 bit 16 since 4.12).</summary>
    public required int XenPv { get; init; }

    /// <summary>The number of the feature "spin unlock is paravirtualised" (X86_FEATURE_PVUNLOCK, word 8 bit 20 since 5.13).</summary>
    public required int PvUnlock { get; init; }

    /// <summary>The number of the feature "vcpu_is_preempted is paravirtualised" (X86_FEATURE_VCPUPREEMPT, word 8 bit 21 since 5.13).</summary>
    public required int VcpuPreempt { get; init; }

    /// <summary>The nops that a replacement is padded with, and that runs of 0x90 become.</summary>
    public required NopStyle Nops { get; init; }

    /// <summary>6.1: replacements are relocated only where they are one call or jump of 5 bytes.</summary>
    public static AlternativeRules Linux61 { get; } = new()
    {
        XenPv = (8 * 32) + 16,
        PvUnlock = (8 * 32) + 20,
        VcpuPreempt = (8 * 32) + 21,
        Nops = NopStyle.Linux61X64,
    };
}
