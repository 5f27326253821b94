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
