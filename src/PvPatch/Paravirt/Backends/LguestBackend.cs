using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Paravirt;

/// <summary>An lguest guest (32-bit, 2.6.23 to about 4.13): interrupts are allowed by a word in memory shared with the host.</summary>
internal static class LguestBackend
{
    private const int Bitness = 32;

    /// <summary>The backend's name.</summary>
    public const string Name = "lguest";

    /// <summary>Makes the lguest backend for any 32-bit layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="targets">Where the functions are, those of lguest (<c>lguest_…</c>, <c>lg_…</c>) and the native ones that stay.</param>
    /// <param name="options">What guests disagree on; <see langword="null"/> for 2.6.31 and later.</param>
    /// <returns>The backend. A slot that lguest must replace is missing where its function is not known and it has no body.</returns>
    /// <exception cref="ArgumentException"><c>lguest_data</c> lies above 4 GiB.</exception>
    public static Backend Create(OpsLayout layout, SlotTargets targets, LguestOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(targets);
        options ??= new LguestOptions();
        var slots = new PvSlots(layout);
        var native = new NativeOperations(slots, Bitness, targets, new NativeOptions());
        VirtualAddress? data = options.LguestData ?? targets.Find("lguest_data");
        if (data is { Value: > uint.MaxValue })
        {
            throw new ArgumentException($"lguest_data at {data} is no 32-bit address", nameof(options));
        }

        return Backend.Create(Name, layout, b =>
        {
            foreach ((string name, OpSlot slot) in slots.All)
            {
                b.Set(slot.Name, OperationOf(name, slot));
            }
        });

        Operation OperationOf(string name, OpSlot slot)
        {
            string[] symbols = LguestFunctions.Of(name);
            Operation called = symbols.Length == 0 ? native.WithoutBody(name, slot)
                : targets.TryFind(symbols, out string? symbol, out VirtualAddress target) ? NativeOperations.Leave(slot, target, symbol)
                : LguestFunctions.IsAlwaysReplaced(name) ? Operation.Missing
                : native.WithoutBody(name, slot);
            if (data is not VirtualAddress shared || BodyOf(name, shared, options.InlineEnableAndRestore) is not InlineBody body)
            {
                return called;
            }

            // Where the body does not fit, the backend's patch function goes on with the default rule.
            Operation inlined = Operation.Inline(body).DefaultingWhereTooLong();
            return called.Target is VirtualAddress function ? inlined.WithTarget(function, called.TargetName) : inlined;
        }
    }

    private static InlineBody? BodyOf(string name, VirtualAddress lguestData, bool all)
    {
        // irq_enabled is the first word of the shared memory and holds the flags register's IF bit (0x200) or nothing.
        long irqEnabled = (long)lguestData.Value;
        return name switch
        {
            // mov dword [irq_enabled],0: c7 05 a32 00 00 00 00
            "irq.irq_disable" => InlineBody.Create(a => a.mov(__dword_ptr[irqEnabled], 0)),

            // mov eax,[irq_enabled]: a1 a32
            "irq.save_fl" => InlineBody.Create(a => a.mov(eax, __dword_ptr[irqEnabled])),

            // mov dword [irq_enabled],200: c7 05 a32 00 02 00 00
            "irq.irq_enable" when all => InlineBody.Create(a => a.mov(__dword_ptr[irqEnabled], 0x200)),

            // mov [irq_enabled],eax: a3 a32
            "irq.restore_fl" when all => InlineBody.Create(a => a.mov(__dword_ptr[irqEnabled], eax)),
            _ => null,
        };
    }
}

/// <summary>What lguest guests disagree on. The defaults are those of 2.6.31 and later.</summary>
public sealed record LguestOptions
{
    /// <summary>
    /// The run address of <c>lguest_data</c>, the memory shared with the host; its first word is <c>irq_enabled</c>. <see langword="null"/>
    /// to ask the targets. Where it is not known there are no bodies.
    /// </summary>
    public VirtualAddress? LguestData { get; init; }

    /// <summary>
    /// Whether <c>irq.irq_enable</c> and <c>irq.restore_fl</c> have bodies (until 2.6.30). They were dropped because a guest that allows
    /// interrupts must then look whether one is pending, and a plain store does not.
    /// </summary>
    public bool InlineEnableAndRestore { get; init; }
}

/// <summary>What lguest's functions are called, and which slots it fills.</summary>
internal static class LguestFunctions
{
    /// <summary>The names a slot's lguest function goes by, likeliest first; none where the slot stays native.</summary>
    public static string[] Of(string name)
    {
        string shortName = name[(name.IndexOf('.', StringComparison.Ordinal) + 1)..];
        return name switch
        {
            "init.patch" => ["lguest_patch"],

            // These four had no prefix for most of their life, and thunks from 2.6.30 on.
            "irq.save_fl" or "irq.irq_disable" =>
                [$"{NativeFunctions.Thunk}{shortName}", $"{NativeFunctions.Thunk}lguest_{shortName}", $"lguest_{shortName}", shortName],
            "irq.restore_fl" or "irq.irq_enable" =>
                [$"lg_{shortName}", $"{NativeFunctions.Thunk}{shortName}", $"lguest_{shortName}", shortName],
            "cpu.start_context_switch" => ["paravirt_start_context_switch"],
            "cpu.lazy_mode.enter" => ["paravirt_enter_lazy_cpu"],
            "cpu.lazy_mode.leave" => ["lguest_leave_lazy_mode"],
            "mmu.lazy_mode.enter" => ["paravirt_enter_lazy_mmu"],
            "mmu.lazy_mode.leave" => ["lguest_leave_lazy_mmu_mode", "lguest_leave_lazy_mode"],
            "mmu.lazy_mode.flush" => ["paravirt_flush_lazy_mmu"],
            "mmu.pte_update_defer" => ["lguest_pte_update"],
            _ when IsAlwaysReplaced(name) || IsSometimesReplaced(name) => [$"lguest_{shortName}"],
            _ => [],
        };
    }

    /// <summary>Slots in which a native function would be wrong in every lguest kernel.</summary>
    public static bool IsAlwaysReplaced(string name) => name is
        "irq.save_fl" or "irq.restore_fl" or "irq.irq_disable" or "irq.irq_enable" or "irq.safe_halt"
        or "cpu.load_gdt" or "cpu.cpuid" or "cpu.load_idt" or "cpu.iret" or "cpu.load_sp0" or "cpu.load_esp0" or "cpu.load_tr_desc"
            or "cpu.set_ldt"
        or "cpu.load_tls" or "cpu.set_debugreg" or "cpu.clts" or "cpu.read_cr0" or "cpu.write_cr0" or "cpu.read_cr4" or "cpu.write_cr4"
        or "cpu.write_gdt_entry" or "cpu.write_idt_entry" or "cpu.wbinvd" or "mmu.write_cr3" or "mmu.flush_tlb_user"
            or "mmu.flush_tlb_single"
        or "mmu.flush_tlb_kernel" or "mmu.set_pte" or "mmu.set_pte_at" or "mmu.set_pmd" or "mmu.read_cr2" or "mmu.read_cr3";

    // The PAE slots came with PAE support; the lazy modes and updates changed their shape.
    private static bool IsSometimesReplaced(string name) => name is
        "cpu.end_context_switch" or "mmu.set_pte_atomic" or "mmu.pte_clear" or "mmu.pmd_clear" or "mmu.set_pud" or "mmu.pte_update";
}
