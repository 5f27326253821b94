using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// The native functions of a kernel as assembler source: for each slot the one it holds on disk, with the instruction it is there for.
/// </summary>
internal static class EraFunctions
{
    // The shortest that does what a slot is for, where that is one instruction; the same text for both bitnesses.
    private static readonly Dictionary<string, string> s_bodies = new()
    {
        ["irq_disable"] = "cli",
        ["irq_enable"] = "sti",
        ["save_fl"] = "pushf; pop %@ax",
        ["restore_fl"] = "push %@ax; popf",
        ["safe_halt"] = "jmp 1f; int3; 1: sti; hlt",
        ["halt"] = "hlt",
        ["clts"] = "clts",
        ["wbinvd"] = "wbinvd",
        ["load_tr_desc"] = "mov $0x80, %eax; ltr %ax",
        ["store_tr"] = "str %eax",
        ["load_gdt"] = "lgdt (%@ax)",
        ["load_idt"] = "lidt (%@ax)",
        ["store_gdt"] = "sgdt (%@ax)",
        ["store_idt"] = "sidt (%@ax)",
        ["cpuid"] = "push %@bx; cpuid; pop %@bx",
        ["read_msr"] = "rdmsr",
        ["write_msr"] = "wrmsr",
        ["read_tsc"] = "rdtsc",
        ["read_tscp"] = "rdtscp",
        ["read_pmc"] = "rdpmc",
        ["swapgs"] = "swapgs",
        ["iret"] = "iret@",
        ["irq_enable_sysexit"] = "sti; sysexit",
        ["irq_enable_syscall_ret"] = "swapgs; sysretq",
        ["usergs_sysret64"] = "swapgs; sysretq",
        ["usergs_sysret32"] = "swapgs; sysretl",
        ["flush_tlb_single"] = "invlpg (%@ax)",
        ["read_cr0"] = "mov %cr0, %@ax",
        ["read_cr2"] = "mov %cr2, %@ax",
        ["read_cr3"] = "mov %cr3, %@ax",
        ["read_cr4"] = "mov %cr4, %@ax",
        ["read_cr4_safe"] = "mov %cr4, %@ax",
        ["read_cr8"] = "mov %cr8, %@ax",
        ["write_cr0"] = "mov %@ax, %cr0",
        ["write_cr2"] = "mov %@ax, %cr2",
        ["write_cr3"] = "mov %@ax, %cr3",
        ["write_cr4"] = "mov %@ax, %cr4",
        ["write_cr8"] = "mov %@ax, %cr8",
    };

    private static readonly HashSet<string> s_empty =
    [
        "activate_mm", "dup_mmap", "exit_mmap", "pgd_free", "alloc_ldt", "free_ldt", "start_context_switch", "end_context_switch",
        "alloc_pt", "alloc_pd", "alloc_pd_clone", "release_pt", "release_pd", "alloc_pte", "alloc_pmd", "alloc_pmd_clone", "alloc_pud",
        "alloc_p4d",
        "release_pte", "release_pmd", "release_pud", "release_p4d", "pte_update", "pte_update_defer", "pmd_update", "pmd_update_defer",
        "lazy_mode.enter", "lazy_mode.leave", "lazy_mode.flush", "set_lazy_mode", "adjust_exception_frame", "startup_ipi_hook", "wait",
        "kick",
    ];

    private static readonly HashSet<string> s_conversions =
        ["pte_val", "make_pte", "pgd_val", "make_pgd", "pmd_val", "make_pmd", "pud_val", "make_pud", "p4d_val", "make_p4d"];

    /// <summary>The symbol a slot holds.</summary>
    public static string Of(OpSlot slot)
    {
        bool calleeSave = slot.Convention == CallConvention.CalleeSave;
        return slot.Kind == SlotKind.Data && slot.ShortName != "patch" ? "0"
            : s_empty.Contains(slot.ShortName) ? "_paravirt_nop"
            : s_conversions.Contains(slot.ShortName) && calleeSave ? "_paravirt_ident_64"
            : slot.ShortName is "queued_spin_unlock" or "vcpu_is_preempted" ? $"__raw_callee_save___native_{slot.ShortName}"
            : calleeSave && slot.ShortName != "read_cr2" ? $"__raw_callee_save_native_{slot.ShortName}"
            : $"native_{slot.ShortName}";
    }

    /// <summary>The functions of a layout's slots, and the empty one and the identity.</summary>
    public static string Source(OpsLayout layout, int bits)
    {
        char width = bits == 64 ? 'r' : 'e';
        var source = new System.Text.StringBuilder();
        Add("_paravirt_nop", "ret");
        Add("_paravirt_ident_64", bits == 64 ? "mov %rdi, %rax; ret" : "ret");
        foreach (OpSlot slot in layout.Slots)
        {
            string symbol = Of(slot);
            if (symbol is "0" or "_paravirt_nop" or "_paravirt_ident_64")
            {
                continue;
            }

            // i386 has the slot of a system call exit that only a 64-bit kernel uses.
            bool has = bits == 64 || slot.ShortName is not ("usergs_sysret32" or "usergs_sysret64");
            string body = (has ? s_bodies : []).GetValueOrDefault(slot.ShortName, "xor %eax, %eax")
                .Replace("iret@", bits == 64 ? "iretq" : "iret", StringComparison.Ordinal)
                .Replace('@', width);
            if (symbol.StartsWith("__raw_callee_save_native_", StringComparison.Ordinal))
            {
                Add(symbol["__raw_callee_save_".Length..], body + "; ret");
                body = $"push %{width}cx; call {symbol["__raw_callee_save_".Length..]}; pop %{width}cx";
            }

            Add(symbol, body + "; ret");
        }

        return source.ToString();

        void Add(string name, string code) => source.Append($".globl {name}\n.type {name}, @function\n{name}: {code}\n");
    }
}
