using PvPatch.Linux.Tests.Support;
using Member = PvPatch.Linux.Tests.Support.TestBtf.Member;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>The ops table of the synthetic kernels: its slots in order, and the type information that says so.</summary>
internal static class SyntheticOps
{
    /// <summary>All slots in the order of the table; a star marks those that preserve registers.</summary>
    private static readonly string[] s_slots =
    [
        "cpu.io_delay", "cpu.alloc_ldt", "cpu.free_ldt", "cpu.wbinvd",
        "irq.save_fl*", "irq.irq_disable*", "irq.irq_enable*", "irq.halt",
        "mmu.flush_tlb_user", "mmu.read_cr2*", "mmu.read_cr3", "mmu.write_cr3", "mmu.alloc_pte", "mmu.alloc_pmd", "mmu.release_pte",
        "mmu.release_pmd",
        "mmu.pte_val*", "mmu.lazy_mode.enter", "mmu.lazy_mode.leave", "mmu.set_fixmap",
        "lock.queued_spin_unlock*", "lock.vcpu_is_preempted*", "lock.kick",
    ];

    public static IReadOnlyList<string> Names { get; } = [.. s_slots.Select(static s => s.TrimEnd('*'))];

    /// <summary>The slots whose native function does nothing: those that never have anything to do, and lazy mode.</summary>
    public static IReadOnlyList<string> Empty { get; } =
        ["cpu.alloc_ldt", "cpu.free_ldt", "mmu.alloc_pte", "mmu.alloc_pmd", "mmu.release_pte", "mmu.release_pmd", "mmu.lazy_mode.enter",
            "mmu.lazy_mode.leave"];

    public static int IndexOf(string slot)
    {
        int index = Names.ToList().IndexOf(slot);
        Assert.True(index >= 0, slot);
        return index;
    }

    /// <summary>The type information of a kernel with one table of four parts, as 5.13 to 6.7 have it.</summary>
    /// <param name="word">The size of a pointer.</param>
    /// <param name="more">Adds other types.</param>
    public static byte[] Btf(int word = 8, Action<TestBtf>? more = null)
    {
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        int calleeSave = btf.Struct("paravirt_callee_save", word, new Member("func", pointer, 0));
        int lazy = btf.Struct("pv_lazy_ops", 2 * word, new Member("enter", pointer, 0), new Member("leave", pointer, 8 * word));
        var parts = new List<Member>();
        int bits = 0;
        foreach (IGrouping<string, string> part in s_slots.GroupBy(static s => s[..s.IndexOf('.', StringComparison.Ordinal)]))
        {
            var members = new List<Member>();
            int at = 0;
            foreach (string slot in part.Select(s => s[(part.Key.Length + 1)..]))
            {
                if (slot == "lazy_mode.leave")
                {
                    continue; // within lazy_mode
                }

                bool nested = slot == "lazy_mode.enter";
                members.Add(
                    new Member(nested ? "lazy_mode" : slot.TrimEnd('*'), nested ? lazy : slot.EndsWith('*') ? calleeSave : pointer, at));
                at += (nested ? 2 : 1) * 8 * word;
            }

            parts.Add(new Member(part.Key, btf.Struct($"pv_{part.Key}_ops", at / 8, [.. members]), bits));
            bits += at;
        }

        btf.Struct("paravirt_patch_template", bits / 8, [.. parts]);
        more?.Invoke(btf);
        return btf.Build();
    }

    /// <summary>
    /// Type information of a template whose members are the ones given, every one a pointer at the offset given in bytes.
    /// </summary>
    public static byte[] FlatBtf(int size, params (string Name, int Offset)[] members)
    {
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        btf.Struct("paravirt_patch_template", size, [.. members.Select(m => new Member(m.Name, pointer, 8 * m.Offset))]);
        return btf.Build();
    }
}
