using PvPatch.Machine;

namespace PvPatch.Linux.Eras;

/// <summary>Operands of a replacement that are adjusted when it is copied to its site.</summary>
internal enum ReplacementRelocation
{
    /// <summary>Only a replacement that is one call or jump of 5 bytes (to 6.7; read in 5.10 and 6.1).</summary>
    SingleBranch,

    /// <summary>Every branch and RIP-relative operand that leaves the replacement (6.8 and later; read in 6.12).</summary>
    EveryInstruction,
}

/// <summary>Treatment of nops at a site after its bytes are written.</summary>
internal enum NopMerging
{
    /// <summary>Runs of two or more one-byte nops (0x90) become the fewest nops (to 6.7; read in 5.10 and 6.1).</summary>
    RunsOfOneByteNops,

    /// <summary>
    /// Runs of two or more nops of any form become one, or a jump over int3 where it would be too long (6.8 and later; read in 6.12).
    /// </summary>
    RunsOfAnyNops,
}

/// <summary>Rules of one era's alternatives (<c>arch/x86/kernel/alternative.c</c>).</summary>
internal sealed record AlternativeRules
{
    /// <summary>The number of the feature "runs as a Xen PV guest" (X86_FEATURE_XENPV, word 8 bit 16).</summary>
    public required int XenPv { get; init; }

    /// <summary>The number of the feature "spin unlock is paravirtualised" (X86_FEATURE_PVUNLOCK, word 8 bit 20).</summary>
    public required int PvUnlock { get; init; }

    /// <summary>The number of the feature "vcpu_is_preempted is paravirtualised" (X86_FEATURE_VCPUPREEMPT, word 8 bit 21).</summary>
    public required int VcpuPreempt { get; init; }

    /// <summary>Operands of a replacement that are adjusted.</summary>
    public required ReplacementRelocation Relocation { get; init; }

    /// <summary>Treatment of nops.</summary>
    public required NopMerging Merging { get; init; }

    /// <summary>The nops of 64-bit kernels.</summary>
    public required NopStyle Nops64 { get; init; }

    /// <summary>The nops of 32-bit kernels.</summary>
    public required NopStyle Nops32 { get; init; }

    /// <summary>Whether the records marked as direct calls are the paravirt sites themselves (6.8 and later).</summary>
    public bool DirectCallsAreSites { get; init; }

    /// <summary>
    /// Whether the records of one address are one: the last that applies counts, over the longest of them (6.8 and later). Before, each is
    /// applied in its turn.
    /// </summary>
    public bool GroupsRecords { get; init; }

    /// <summary>5.13 to 6.7, read and measured in 6.1.</summary>
    public static AlternativeRules Linux61 { get; } = new()
    {
        XenPv = (8 * 32) + 16,
        PvUnlock = (8 * 32) + 20,
        VcpuPreempt = (8 * 32) + 21,
        Relocation = ReplacementRelocation.SingleBranch,
        Merging = NopMerging.RunsOfOneByteNops,
        Nops64 = NopStyle.Linux61X64,
        Nops32 = NopStyle.Linux61X86,
    };

    /// <summary>6.8 and later, read and measured in 6.12, measured in 7.2.</summary>
    public static AlternativeRules Linux612 { get; } = Linux61 with
    {
        DirectCallsAreSites = true,
        GroupsRecords = true,
        Relocation = ReplacementRelocation.EveryInstruction,
        Merging = NopMerging.RunsOfAnyNops,
        Nops64 = NopStyle.Linux612X64,
        Nops32 = NopStyle.Linux612X86,
    };

    internal NopStyle Nops(int bitness) => bitness == 64 ? Nops64 : Nops32;
}
