using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// The part of a kernel image that is freed once the kernel is up (free_initmem): its pages are filled with 0xcc and given back to the
/// allocator.
/// </summary>
/// <remarks>
/// By name: <c>.init.*</c>, <c>.exit.text</c>, <c>.altinstr_aux</c> and the tables that only the start needs. The linker script
/// (arch/x86/kernel/vmlinux.lds.S) puts all of them between __init_begin and __init_end.
/// </remarks>
internal sealed class InitAreas
{
    private static readonly string[] s_tables = [".parainstructions", ".altinstructions", ".altinstr_replacement", ".apicdrivers",
        ".smp_locks", ".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal"];
    private readonly ulong _base;

    private InitAreas(ulong imageBase)
    {
        _base = imageBase;
    }

    public static InitAreas Of(ElfImage image)
    {
        // Per-processor data has addresses of its own, from 0 on, below all code.
        ElfSection? text = image.Sections.Where(static s => s.IsAllocated && s.IsExecutable && s.Size > 0)
            .MinBy(static s => s.Address.Value);
        return new InitAreas(text?.Address.Value ?? 0);
    }

    /// <summary>Whether a section of code is freed after the start.</summary>
    public static bool IsFreed(string section) =>
        section.StartsWith(".init.", StringComparison.Ordinal) || section is ".exit.text" or ".altinstr_aux" || s_tables.Contains(section);

    /// <summary>The sections that stay, at addresses of the image.</summary>
    public IEnumerable<ElfSection> Kept(ElfImage image) => image.Sections.Where(s =>
        s.IsAllocated && s.Address.Value >= _base && !IsFreed(s.Name)
        && !s.Name.EndsWith(".init", StringComparison.Ordinal) && (s.Flags & ElfSectionAttributes.ThreadLocal) == 0
        && FileRange.FitsAddressSpace(s.Address.Value, s.Size, 64));
}
