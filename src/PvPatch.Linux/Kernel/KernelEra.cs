using System.Diagnostics.CodeAnalysis;
using PvPatch.Planning;
using PvPatch.Sites.Formats;

namespace PvPatch.Linux.Kernel;

/// <summary>Where a kernel keeps its paravirt sites.</summary>
public enum SiteSource
{
    /// <summary>In <c>.parainstructions</c> (2.6.20 to 6.7).</summary>
    ParaInstructions,

    /// <summary>In <c>.altinstructions</c>, as records marked as direct calls (6.8 and later).</summary>
    DirectCallAlternatives,
}

/// <summary>
/// What is particular to the kernels of one era, as data: where their sites are, how the table is laid out, by which rules sites
/// are patched, and what alternatives do on top.
/// </summary>
public sealed record KernelEra
{
    /// <summary>The era's name.</summary>
    public required string Name { get; init; }

    /// <summary>Where the sites are.</summary>
    public required SiteSource Source { get; init; }

    /// <summary>The layout of <c>.parainstructions</c>, for 64-bit kernels.</summary>
    public ParaInstructionsFormat SiteTable64 { get; init; } = ParaInstructionsFormat.X64;

    /// <summary>The layout of <c>.parainstructions</c>, for 32-bit kernels.</summary>
    public ParaInstructionsFormat SiteTable32 { get; init; } = ParaInstructionsFormat.I386;

    /// <summary>The rules of the kernel's own patcher.</summary>
    public required PatchRules Rules { get; init; }

    /// <summary>What alternatives at the addresses of sites do after the patcher; <see langword="null"/> where none are laid over.</summary>
    public AlternativeRules? Alternatives { get; init; }

    /// <summary>Whether the kernel chooses its nops by processor when it boots (to 5.12).</summary>
    public bool ChoosesNopsByCpu { get; init; }

    /// <summary>The name of the function that a missing operation calls; <see langword="null"/> where it traps.</summary>
    public string? BugFunction { get; init; }

    /// <summary>
    /// 4.20 to 5.12 with one table and a patch function of each backend, measured in 5.10: short forms by slot number out of the patcher
    /// (<c>arch/x86/kernel/paravirt_patch.c</c>); alternatives come first and are none at sites.
    /// </summary>
    public static KernelEra Linux510 { get; } = new()
    {
        Name = "linux-5.10",
        Source = SiteSource.ParaInstructions,
        SiteTable64 = ParaInstructionsFormat.X64Since420,
        Rules = LinuxRules.Linux510,
        ChoosesNopsByCpu = true,
    };

    /// <summary>
    /// 5.13 to 6.7, read and measured in 6.1: slots without init and time, every pointer a call, the short forms laid over by alternatives
    /// (<c>arch/x86/kernel/alternative.c</c>, alternative_instructions: apply_paravirt first, apply_alternatives later).
    /// </summary>
    public static KernelEra Linux61 { get; } = new()
    {
        Name = "linux-6.1",
        Source = SiteSource.ParaInstructions,
        SiteTable64 = ParaInstructionsFormat.X64Since61,
        Rules = LinuxRules.Linux61,
        Alternatives = AlternativeRules.Linux61,
        BugFunction = "paravirt_BUG",
    };

    /// <summary>6.8 and later, read and measured in 6.12, measured in 7.2: calls and short forms are alternatives of one address.</summary>
    public static KernelEra Linux612 { get; } = new()
    {
        Name = "linux-6.12",
        Source = SiteSource.DirectCallAlternatives,
        Rules = LinuxRules.Linux612,
        Alternatives = AlternativeRules.Linux612,
        BugFunction = "BUG_func",
    };

    /// <summary>The eras images can be opened for, oldest first.</summary>
    public static IReadOnlyList<KernelEra> All { get; } = [Linux510, Linux61, Linux612];

    /// <summary>Finds an era by name.</summary>
    /// <param name="name">A name from <see cref="All"/>.</param>
    /// <param name="era">The era.</param>
    /// <returns>Whether there is one.</returns>
    public static bool TryGet(string name, [NotNullWhen(true)] out KernelEra? era)
    {
        era = All.FirstOrDefault(e => e.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
        return era is not null;
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    internal ParaInstructionsFormat SiteTable(int bitness) => bitness == 64 ? SiteTable64 : SiteTable32;
}
