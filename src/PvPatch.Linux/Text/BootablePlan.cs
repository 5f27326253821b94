using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Plans;

namespace PvPatch.Linux.Text;

/// <summary>
/// Makes of the plan for a kernel's memory one for its file, such that the file boots: the kernel's own patcher runs over it again, and code runs
/// before that patcher has run.
/// </summary>
/// <remarks>
/// Two things stand in the way of a file that simply has the bytes of memory. From 6.8 on the kernel stops where a direct call's site is no indirect
/// call any more; the records of patched sites are therefore turned into ones that never apply. And Xen's start-up code fills some slots more than
/// once, calling through them in between; their sites are left to the kernel.
/// </remarks>
public static class BootablePlan
{
    private const string AltSection = AltInstrTable.SectionName;
    private const int FlagsOffset = 8; // of ft_flags in a 14-byte record: two 32-bit distances come first
    private const uint DirectCall = 1u << 17; // ALT_FLAG_DIRECT_CALL
    private const uint Not = 1u << 16; // ALT_FLAG_NOT

    /// <summary>
    /// The slots that Xen's start-up code fills with functions for early use (xen_set_pte_init, xen_write_cr3_init, xen_alloc_pte_init, …) and again later
    /// (xen_post_allocator_init, xen_setup_vcpu_info_placement, the set-up of the first GDT); arch/x86/xen, 5.10 to 6.12.
    /// </summary>
    private static readonly HashSet<string> s_filledTwice =
    [
        "irq.save_fl", "irq.restore_fl", "irq.irq_disable", "irq.irq_enable",
        "cpu.load_gdt", "cpu.write_gdt_entry",
        "mmu.read_cr2", "mmu.write_cr3", "mmu.set_pte", "mmu.set_pmd", "mmu.set_pud", "mmu.set_p4d", "mmu.make_pte",
        "mmu.alloc_pte", "mmu.alloc_pmd", "mmu.alloc_pud", "mmu.release_pte", "mmu.release_pmd", "mmu.release_pud",
    ];

    /// <summary>Makes the plan.</summary>
    /// <param name="image">The image; read only.</param>
    /// <param name="machine">What it boots on.</param>
    /// <param name="plan">The plan for its memory, as <see cref="KernelPlanner"/> makes it.</param>
    /// <returns>The plan for its file. Apply it to <see cref="ImageOf(KernelImage)"/>.</returns>
    public static PatchPlan Create(KernelImage image, BootMachine machine, PatchPlan plan)
    {
        ArgumentNullException.ThrowIfNull(machine);
        return Create(image, plan, machine.Backend == Paravirt.XenBackend.Name ? s_filledTwice : []);
    }

    /// <summary>Makes a plan that knows every state of a file that <see cref="Create(KernelImage, BootMachine, PatchPlan)"/> made, to revert it without its own plan.</summary>
    /// <param name="image">The original image; read only.</param>
    /// <param name="plan">The plan for its memory.</param>
    /// <returns>A plan with every site and every record. Revert it on <see cref="ImageOf(KernelImage)"/>.</returns>
    public static PatchPlan ForRevert(KernelImage image, PatchPlan plan) => Create(image, plan, []);

    private static PatchPlan Create(KernelImage image, PatchPlan plan, HashSet<string> leftToKernel)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(plan);
        var builder = new PlanBuilder(plan.Backend, plan.Rules, ImageOf(image.Elf), plan.Count);
        foreach (PatchDiagnostic diagnostic in plan.Diagnostics)
        {
            builder.AddDiagnostic(diagnostic);
        }

        var patched = new HashSet<VirtualAddress>();
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            if (leftToKernel.Contains(site.Label))
            {
                builder.Add(site.Address, site.OldBytes, site.OldBytes, site.Outcome with { Action = PatchAction.LeaveAlone, Reason = PatchReason.ChangesWhileBooting });
                continue;
            }

            builder.Add(site.Address, site.OldBytes, site.NewBytes, site.Outcome);
            patched.Add(site.Address);
        }

        if (image.Era.Source == SiteSource.DirectCallAlternatives)
        {
            RetireRecords(image, patched, builder);
        }

        return builder.Build();
    }

    /// <summary>The parts of a kernel file that a bootable plan writes to: its code, and its table of alternatives.</summary>
    /// <param name="image">The kernel.</param>
    /// <returns>The image; it views the file's own bytes.</returns>
    public static CodeImage ImageOf(KernelImage image)
    {
        ArgumentNullException.ThrowIfNull(image);
        return ImageOf(image.Elf);
    }

    internal static CodeImage ImageOf(ElfImage elf)
    {
        CodeImage code = KernelImage.CodeOf(elf);
        return TryGetTable(elf, out ElfSection? table) ? new CodeImage(code.Bitness, [.. code.Segments, new CodeSegment(table.Name, table.Address, elf.GetBytes(table))]) : code;
    }

    private static bool TryGetTable(ElfImage elf, [NotNullWhen(true)] out ElfSection? table) =>
        elf.TryGetSection(AltSection, out table) && table.HasFileContent && table.Size > 0 && !table.IsExecutable;

    /// <summary>
    /// A record that applies where a feature is absent that no machine lacks (X86_FEATURE_ALWAYS) never applies; the kernel then only looks
    /// for nops to merge at the site, and finds them merged.
    /// </summary>
    private static void RetireRecords(KernelImage image, HashSet<VirtualAddress> patched, PlanBuilder builder)
    {
        if (!TryGetTable(image.Elf, out ElfSection? table))
        {
            return;
        }

        ReadOnlySpan<byte> bytes = image.Elf.GetBytes(table).Span;
        ReadOnlySpan<AltInstr> records = image.Alternatives!.Records;
        var outcome = new PlanOutcome { Label = AltSection, Action = PatchAction.Record, Detail = "a direct call that is made already" };
        Span<byte> retired = stackalloc byte[sizeof(uint)];
        for (int i = 0; i < records.Length; i++)
        {
            if (records[i].IsDirectCall && patched.Contains(records[i].Address))
            {
                int at = (i * image.Alternatives.Format.Stride) + FlagsOffset;
                uint flags = BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);
                BinaryPrimitives.WriteUInt32LittleEndian(retired, (flags & ~DirectCall) | Not);
                builder.Add(table.Address + at, bytes.Slice(at, sizeof(uint)), retired, outcome);
            }
        }
    }
}
