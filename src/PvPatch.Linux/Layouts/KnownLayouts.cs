using System.Buffers.Binary;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Orders of ops tables of kernels without type information, each proved by the image before it is used: the words of the table must be the
/// native functions that the order says, by name.
/// </summary>
internal static class KnownLayouts
{
    // Kernels without CONFIG_PARAVIRT_XXL (all 32-bit ones since 5.9), 5.13 to 6.7; struct paravirt_patch_template, read in Debian's 6.1
    // 686-pae.
    private static readonly (string Slot, string Native)[] s_withoutXxl61 =
    [
        ("cpu.io_delay", "native_io_delay"),
        ("mmu.flush_tlb_user", "native_flush_tlb_local"),
        ("mmu.flush_tlb_kernel", "native_flush_tlb_global"),
        ("mmu.flush_tlb_one_user", "native_flush_tlb_one_user"),
        ("mmu.flush_tlb_multi", "native_flush_tlb_multi"),
        ("mmu.tlb_remove_table", "tlb_remove_page"),
        ("mmu.exit_mmap", "_paravirt_nop"),
        ("mmu.notify_page_enc_status_changed", "_paravirt_nop"),
        ("lock.queued_spin_lock_slowpath", "native_queued_spin_lock_slowpath"),
        ("lock.queued_spin_unlock*", "__raw_callee_save___native_queued_spin_unlock"),
        ("lock.wait", "_paravirt_nop"),
        ("lock.kick", "_paravirt_nop"),
        ("lock.vcpu_is_preempted*", "__raw_callee_save___native_vcpu_is_preempted"),
    ];

    /// <summary>The layout whose functions the image holds; <see langword="null"/> where there is none, or no symbols.</summary>
    public static OpsLayout? Find(ElfImage elf, KernelSymbols? symbols)
    {
        ParaInstructionsFormat format = elf.Bitness == 64 ? ParaInstructionsFormat.X64Since420 : ParaInstructionsFormat.I386;
        if (symbols is null
            || !elf.TryGetSection(KernelEraDetector.SiteTableSection, out ElfSection? section)
            || !format.TryRead(elf.GetBytes(section).Span, out ParaInstruction[]? records, out _)
            || !PvOpsLocator.TryFind(elf.ToCode(), records, out VirtualAddress? table, out _))
        {
            return null;
        }

        return Holds(elf, symbols, table.Value, s_withoutXxl61) ? Build(s_withoutXxl61, elf.Bitness) : null;
    }

    private static bool Holds(ElfImage elf, KernelSymbols symbols, VirtualAddress table, (string Slot, string Native)[] order)
    {
        int word = elf.Bitness / 8;
        if (!elf.TryGetBytes(table, order.Length * word, out Memory<byte> bytes))
        {
            return false;
        }

        for (int i = 0; i < order.Length; i++)
        {
            ReadOnlySpan<byte> at = bytes.Span[(i * word)..];
            ulong pointer = word == 8 ? BinaryPrimitives.ReadUInt64LittleEndian(at) : BinaryPrimitives.ReadUInt32LittleEndian(at);
            if (!symbols.TryGetAddress(order[i].Native, out VirtualAddress native) || native.Value != pointer)
            {
                return false;
            }
        }

        return true;
    }

    private static OpsLayout Build((string Slot, string Native)[] order, int bitness)
    {
        CallConvention ordinary = bitness == 64 ? CallConvention.KernelSysV : CallConvention.I386RegParm;
        return OpsLayout.Create(
            b =>
            {
                foreach (IGrouping<string, string> table in order.Select(static o => o.Slot)
                    .GroupBy(static s => s[..s.IndexOf('.', StringComparison.Ordinal)]))
                {
                    b.Table(table.Key, t =>
                    {
                        foreach (string slot in table)
                        {
                            string name = slot[(table.Key.Length + 1)..];
                            t.Slot(name.TrimEnd('*'), SlotKind.Call, name.EndsWith('*') ? CallConvention.CalleeSave : null);
                        }
                    }, ordinary);
                }
            },
            "without CONFIG_PARAVIRT_XXL");
    }
}
