using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Plans;

namespace PvPatch.Linux.Text;

/// <summary>
/// Converts the plan for a kernel's memory into one for its file, so that the file boots: the kernel's own patcher runs over it again, and
/// code runs before that patcher has run.
/// </summary>
/// <remarks>
/// Two things stand in the way of a file that simply has the bytes of memory. From 6.8 on the kernel stops where a direct call's site is no
/// indirect call any more; the records of patched sites are therefore turned into ones that never apply. And Xen's start-up code fills some
/// slots more than once, calling through them in between; their sites are left to the kernel.
/// </remarks>
public static class BootablePlan
{
    private const string AltSection = AltInstrTable.SectionName;
    private const int FlagsOffset = 8; // of ft_flags in a 14-byte record: two 32-bit distances come first
    private const uint DirectCall = 1u << 17; // ALT_FLAG_DIRECT_CALL
    private const uint Not = 1u << 16; // ALT_FLAG_NOT

    // The one site that kernels write without a call: SWAPGS_UNSAFE_STACK.
    private const string SwapGs = "cpu.swapgs";
    private static readonly ReadOnlyMemory<byte> s_swapGs = new byte[] { 0x0f, 0x01, 0xf8 }; // swapgs

    /// <summary>
    /// The slots that Xen's start-up code fills with functions for early use (xen_set_pte_init, xen_write_cr3_init, xen_alloc_pte_init, …)
    /// and again later (xen_post_allocator_init, xen_setup_vcpu_info_placement, the set-up of the first GDT); arch/x86/xen, 5.10 to 6.12.
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
    /// <param name="machine">The machine it boots on.</param>
    /// <param name="plan">The plan for its memory, as <see cref="KernelPlanner"/> makes it.</param>
    /// <returns>The plan for its file. Apply it to <see cref="ImageOf(KernelImage)"/>.</returns>
    public static PatchPlan Create(KernelImage image, BootMachine machine, PatchPlan plan)
    {
        ArgumentNullException.ThrowIfNull(machine);
        return Create(image, plan, machine.Backend == Paravirt.XenBackend.Name ? s_filledTwice : []);
    }

    /// <summary>
    /// Makes a plan that knows every state of a file that <see cref="Create(KernelImage, BootMachine, PatchPlan)"/> made, to revert it
    /// without its own plan.
    /// </summary>
    /// <param name="image">The original image; read only.</param>
    /// <param name="plan">The plan for its memory.</param>
    /// <returns>A plan with every site and every record. Revert it on <see cref="ImageOf(KernelImage)"/>.</returns>
    public static PatchPlan ForRevert(KernelImage image, PatchPlan plan) => Create(image, plan, []);

    /// <summary>
    /// Checks that a stored plan is one of a kernel, so that what stands in the file once it is reverted is a kernel that was never
    /// patched.
    /// </summary>
    /// <param name="image">The kernel with the plan's old bytes; read only.</param>
    /// <param name="stored">The plan; untrusted input.</param>
    /// <param name="diagnostics">
    /// The reasons where it is not: the kernel cannot be planned (as <see cref="KernelPlanner"/> says), or what
    /// <see cref="PatchPlan.TryCheckAgainst"/> says of its sites. The plan must have just the sites of the kernel's table (PV5003), at each
    /// site it changes a call or jump through the word of the site's own slot (PV5004), and of the table of alternatives no more than the
    /// records of direct calls, with the bytes that such a plan puts there (PV5003).
    /// </param>
    /// <returns>Whether it is.</returns>
    public static bool TryCheckStored(KernelImage image, PatchPlan stored, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(stored);
        if (!new KernelPlanner().TryPlan(image, Paravirt.NativeBackend.Name, out PatchPlan? memory, out diagnostics))
        {
            return false;
        }

        PatchPlan own = ForRevert(image, memory);
        var records = own.Where(static s => s.Action == PatchAction.Record)
            .ToDictionary(static s => s.Address, static s => s.NewBytes.ToArray());
        var options = new PlanCheckOptions
        {
            SlotAddresses = image.SlotWords,
            AlsoWritten = [.. records.Select(static r => new AddressRange(r.Key, r.Value.Length))],
            IsWhole = true,
            OriginalsWithoutCall = image.Layout.Slots.Where(static s => s.Name == SwapGs)
                .ToDictionary(static s => s.Index, static _ => s_swapGs),
        };
        if (!stored.TryCheckAgainst(ImageOf(image), image.Sites, options, out diagnostics))
        {
            return false;
        }

        foreach (SiteDecision site in stored)
        {
            if (image.Sites.IndexOf(site.Address) < 0 && !IsRecord(site, records))
            {
                diagnostics =
                [
                    PatchDiagnostic.Error(DiagnosticCodes.PlanSiteUnknown, "the plan changes a table in another way than it may") with
                    {
                        Address = site.Address,
                        Found = HexBytes.Format(site.NewBytes),
                        Expected = records.TryGetValue(site.Address, out byte[]? bytes)
                            ? HexBytes.Format(bytes) : "a record of a direct call",
                    },
                ];
                return false;
            }
        }

        return true;
    }

    /// <summary>Checks that a stored plan is one of a kernel, or throws. See <see cref="TryCheckStored"/>.</summary>
    /// <param name="image">The kernel with the plan's old bytes; read only.</param>
    /// <param name="stored">The plan.</param>
    /// <exception cref="PatchException">It is not one of the kernel; the exception has the first finding.</exception>
    public static void CheckStored(KernelImage image, PatchPlan stored)
    {
        if (!TryCheckStored(image, stored, out IReadOnlyList<PatchDiagnostic> diagnostics))
        {
            throw new PatchException(diagnostics[0]);
        }
    }

    private static bool IsRecord(SiteDecision stored, Dictionary<VirtualAddress, byte[]> records) =>
        records.TryGetValue(stored.Address, out byte[]? bytes) && bytes.Length == stored.Length
        && (stored.OldBytes.SequenceEqual(stored.NewBytes) || stored.NewBytes.SequenceEqual(bytes));

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
                builder.Add(site.Address, site.OldBytes, site.OldBytes,
                    site.Outcome with { Action = PatchAction.LeaveAlone, Reason = PatchReason.ChangesWhileBooting });
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
        CodeImage code = elf.ToCode();
        return TryGetTable(elf, out ElfSection? table)
            ? new CodeImage(code.Bitness, [.. code.Segments, new CodeSegment(table.Name, table.Address, elf.GetBytes(table))]) : code;
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
