using System.Diagnostics.CodeAnalysis;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Eras;

/// <summary>Table in which a kernel keeps its paravirt sites.</summary>
internal enum SiteSource
{
    /// <summary>In <c>.parainstructions</c> (2.6.20 to 6.7).</summary>
    ParaInstructions,

    /// <summary>In <c>.altinstructions</c>, as records marked as direct calls (6.8 and later).</summary>
    DirectCallAlternatives,
}

/// <summary>Arrangement of a kernel's slots in memory.</summary>
internal enum SlotPlacement
{
    /// <summary>
    /// One row of words: struct paravirt_ops (2.6.22, 2.6.23), pv_ops (4.20 and later; the lock slots are a row of their own after 6.18).
    /// </summary>
    OneTable,

    /// <summary>
    /// A row of words for each table of the layout, apart from each other: pv_init_ops, pv_cpu_ops and so on (2.6.24 to 4.19).
    /// </summary>
    TableByTable,

    /// <summary>Site types are no indexes, so each type has its word somewhere (2.6.20, 2.6.21).</summary>
    WordByWord,
}

/// <summary>
/// The facts of one kernel era, as data: the table of its sites, the arrangement of its slots, the rules its sites are patched by, and the
/// rules of its alternatives.
/// </summary>
public sealed record KernelEra
{
    private KernelEra(string name, PatchRules rules)
    {
        Name = name;
        Rules = rules;
    }

    /// <summary>The era's name.</summary>
    public string Name { get; private init; }

    /// <summary>The table that holds the sites.</summary>
    internal SiteSource Source { get; private init; }

    /// <summary>The layout of <c>.parainstructions</c>, for 64-bit kernels.</summary>
    internal ParaInstructionsFormat SiteTable64 { get; private init; } = ParaInstructionsFormat.X64;

    /// <summary>The layout of <c>.parainstructions</c>, for 32-bit kernels.</summary>
    internal ParaInstructionsFormat SiteTable32 { get; private init; } = ParaInstructionsFormat.I386;

    /// <summary>The rules of the kernel's own patcher.</summary>
    public PatchRules Rules { get; private init; }

    /// <summary>Arrangement of the slots in memory.</summary>
    internal SlotPlacement Placement { get; private init; }

    /// <summary>
    /// Whether the native patch function turns the conversions of page-table entries (pte_val, make_pte and so on) into nops by their
    /// number, whatever function the slot holds (2.6.22 only; later by the pointer).
    /// </summary>
    internal bool ErasesConversions { get; private init; }

    /// <summary>
    /// Whether the 64-bit native patch function has a body for iret; <see langword="null"/> where that changed within the era, and the
    /// image must tell.
    /// </summary>
    internal bool? InlinesInterruptReturn { get; private init; }

    /// <summary>
    /// Rules of the alternatives at the addresses of sites, applied after the patcher; <see langword="null"/> for eras without them.
    /// </summary>
    internal AlternativeRules? Alternatives { get; private init; }

    /// <summary>Whether the kernel chooses its nops by processor when it boots (to 5.12).</summary>
    public bool ChoosesNopsByCpu { get; private init; }

    /// <summary>The name of the function that a missing operation calls; <see langword="null"/> where it traps.</summary>
    internal string? BugFunction { get; private init; }

    // What tells the era's images from those of others. EraTraits compares; what a record leaves out tells nothing.

    /// <summary>Whether there are no 64-bit kernels of the era with paravirt sites.</summary>
    internal bool Is32BitOnly { get; private init; }

    /// <summary>Whether its images cannot be told from those of the next era (and are patched to the same bytes).</summary>
    internal bool IsReadAsNext { get; private init; }

    /// <summary>The forms of sites that its images may have.</summary>
    internal SiteShapes PossibleShapes { get; private init; }

    /// <summary>The forms of sites that each of its images has, of either bitness.</summary>
    internal SiteShapes NecessaryShapesAny { get; private init; }

    /// <summary>The forms of sites that each of its 64-bit images has.</summary>
    internal SiteShapes NecessaryShapes64 { get; private init; }

    /// <summary>Whether its images may have type information (.BTF, from 5.2 on) with the layout.</summary>
    internal bool MayHaveTypes { get; private init; }

    /// <summary>Whether its layouts have several tables; <see langword="null"/> where that does not tell.</summary>
    internal bool? HasTables { get; private init; }

    /// <summary>
    /// Whether <c>irq.save_fl</c>, where there is such a slot, is callee-save; <see langword="null"/> where that does not tell.
    /// </summary>
    internal bool? HasCalleeSave { get; private init; }

    /// <summary>The slots that its layouts have; a table's name with a dot stands for any slot of that table.</summary>
    internal string[] Slots { get; private init; } = [];

    /// <summary>The slots that its layouts do not have.</summary>
    internal string[] AbsentSlots { get; private init; } = [];

    /// <summary>The symbols that its images have.</summary>
    internal string[] Symbols { get; private init; } = [];

    /// <summary>The symbols that its images do not have.</summary>
    internal string[] AbsentSymbols { get; private init; } = [];

    /// <summary>Whether <c>paravirt_patch_call</c> compares clobbers; <see langword="null"/> where that does not tell.</summary>
    internal bool? TestsClobbers { get; private init; }

    /// <summary>2.6.20: i386 only; seven types of site, pushes inside the sites, a body or nothing.</summary>
    public static KernelEra Linux2620 { get; } = new("linux-2.6.20", LinuxRules.Linux2620)
    {
        SiteTable64 = ParaInstructionsFormat.X64Before2630,
        SiteTable32 = ParaInstructionsFormat.I386Before2630,
        Placement = SlotPlacement.WordByWord,
        InlinesInterruptReturn = true,
        ChoosesNopsByCpu = true,
        IsReadAsNext = true,
        Is32BitOnly = true,
        PossibleShapes = SiteShapes.Saves10 | SiteShapes.TwoCalls | SiteShapes.Saves11 | SiteShapes.AnySave,
        NecessaryShapesAny = SiteShapes.AnySave, // every site of cli saves registers, to 2.6.29
        HasTables = false,
        HasCalleeSave = false,
        Slots = ["save_fl_irq_disable"],
        AbsentSlots = ["cpu.irq_enable_syscall_ret", "cpu.usergs_sysret64"],
    };

    /// <summary>2.6.21: its sites become the same as those of 2.6.20.</summary>
    public static KernelEra Linux2621 { get; } = Linux2620 with
    {
        Name = "linux-2.6.21",
        Rules = LinuxRules.Linux2621,
        IsReadAsNext = false
    };

    /// <summary>2.6.22: types are indexes into struct paravirt_ops.</summary>
    public static KernelEra Linux2622 { get; } = Linux2621 with
    {
        Name = "linux-2.6.22",
        Placement = SlotPlacement.OneTable,
        Rules = LinuxRules.Linux2622,
        ErasesConversions = true,
        PossibleShapes = SiteShapes.Saves10 | SiteShapes.Saves13 | SiteShapes.AnySave,
        Slots = [],
        AbsentSlots = ["save_fl_irq_disable", "cpu.irq_enable_syscall_ret", "cpu.usergs_sysret64"],
        AbsentSymbols = ["text_poke"],
    };

    /// <summary>
    /// 2.6.23: with Xen and lguest, and conversions of page-table entries called like all else. The patcher writes through text_poke.
    /// </summary>
    public static KernelEra Linux2623 { get; } = Linux2622 with
    {
        Name = "linux-2.6.23",
        Rules = LinuxRules.Linux2623,
        ErasesConversions = false,
        Symbols = ["text_poke"],
        AbsentSymbols = [],
    };

    /// <summary>2.6.24: six tables.</summary>
    public static KernelEra Linux2624 { get; } = Linux2623 with
    {
        Name = "linux-2.6.24",
        Placement = SlotPlacement.TableByTable,
        Rules = LinuxRules.Linux2624,
        HasTables = true,
        Slots = ["init.patch"],
        AbsentSlots = ["save_fl_irq_disable", "lock.", "cpu.irq_enable_syscall_ret", "cpu.usergs_sysret64"],
        Symbols = [],
        AbsentSymbols = ["pv_lock_ops"],
    };

    /// <summary>2.6.25 and 2.6.26: x86-64 too.</summary>
    public static KernelEra Linux2625 { get; } = Linux2624 with
    {
        Name = "linux-2.6.25",
        Rules = LinuxRules.Linux2625,
        Is32BitOnly = false,
        PossibleShapes = SiteShapes.Saves10 | SiteShapes.Saves15 | SiteShapes.SavesRdi | SiteShapes.Absolute26 | SiteShapes.AnySave,
        AbsentSlots = ["save_fl_irq_disable", "lock.", "cpu.usergs_sysret64"],
    };

    /// <summary>2.6.27 to 2.6.29: a table of lock slots.</summary>
    public static KernelEra Linux2627 { get; } = Linux2625 with
    {
        Name = "linux-2.6.27",
        Rules = LinuxRules.Linux2627,
        PossibleShapes = SiteShapes.Saves10 | SiteShapes.Saves15 | SiteShapes.SavesRdi | SiteShapes.Saves32 | SiteShapes.AnySave,
        Slots = ["init.patch", "lock."],
        AbsentSlots = ["save_fl_irq_disable", "cpu.irq_enable_syscall_ret"],
        AbsentSymbols = [],
    };

    /// <summary>2.6.30 to 4.1: callee-save slots, whose sites hold nothing but the call; on x86-64 through an absolute address.</summary>
    public static KernelEra Linux2630 { get; } = Linux2627 with
    {
        Name = "linux-2.6.30",
        SiteTable64 = ParaInstructionsFormat.X64,
        SiteTable32 = ParaInstructionsFormat.I386,
        Rules = LinuxRules.Linux2630,
        InlinesInterruptReturn = null,
        PossibleShapes = SiteShapes.Absolute7 | SiteShapes.SavesResult | SiteShapes.AnySave,
        NecessaryShapesAny = SiteShapes.None,
        NecessaryShapes64 = SiteShapes.Absolute7,
        HasCalleeSave = true,
        Slots = ["init.patch"],
        AbsentSlots = ["save_fl_irq_disable", "cpu.irq_enable_syscall_ret", "lock.queued_spin_unlock"],
        TestsClobbers = true,
    };

    /// <summary>
    /// 2.6.30 to 4.1 with a change of 2018 that stable kernels took over: the clobber word is there but no longer looked at.
    /// </summary>
    public static KernelEra Linux2630Stable { get; } = Linux2630 with
    {
        Name = "linux-2.6.30-stable",
        Rules = LinuxRules.Linux2630 with
        {
            Name = "linux-2.6.30-stable",
            AnyClobbers32 = RegisterSet.None,
            AnyClobbers64 = RegisterSet.None,
        },
        TestsClobbers = false,
    };

    /// <summary>4.2 to 4.18: queued spinlocks.</summary>
    public static KernelEra Linux42 { get; } = Linux2630 with
    {
        Name = "linux-4.2",
        Rules = LinuxRules.Linux42,
        Slots = ["init.patch", "lock.queued_spin_unlock"],
        AbsentSlots = ["save_fl_irq_disable", "cpu.irq_enable_syscall_ret"],
    };

    /// <summary>
    /// 4.19, and older ones from 4.4 on with its changes (stable and vendor kernels): the clobber word is there but no longer looked at.
    /// </summary>
    public static KernelEra Linux418Backports { get; } = Linux42 with
    {
        Name = "linux-4.18rh",
        Rules = LinuxRules.Linux418Backports,
        TestsClobbers = false
    };

    /// <summary>4.20 to 5.9: one table, pv_ops.</summary>
    public static KernelEra Linux420 { get; } = Linux418Backports with
    {
        Name = "linux-4.20",
        SiteTable64 = ParaInstructionsFormat.X64Since420,
        Placement = SlotPlacement.OneTable,
        Rules = LinuxRules.Linux420,
        MayHaveTypes = true,
        Slots = ["init.patch", "cpu.set_iopl_mask"],
        TestsClobbers = null,
    };

    /// <summary>
    /// 5.10 to 5.12 with one table and a patch function of each backend, measured in 5.10: short forms by slot number out of the patcher
    /// (<c>arch/x86/kernel/paravirt_patch.c</c>); alternatives come first and are none at sites.
    /// </summary>
    public static KernelEra Linux510 { get; } = new("linux-5.10", LinuxRules.Linux510)
    {
        SiteTable64 = ParaInstructionsFormat.X64Since420,
        ChoosesNopsByCpu = true,
        PossibleShapes = Linux420.PossibleShapes,
        NecessaryShapes64 = Linux420.NecessaryShapes64,
        MayHaveTypes = true,
        HasTables = true,
        HasCalleeSave = true,
        Slots = ["init.patch"],
        AbsentSlots = [.. Linux420.AbsentSlots, "cpu.set_iopl_mask"],
    };

    /// <summary>
    /// 5.13 to 6.7, read and measured in 6.1: slots without init and time, every pointer a call, the short forms laid over by alternatives
    /// (<c>arch/x86/kernel/alternative.c</c>, alternative_instructions: apply_paravirt first, apply_alternatives later).
    /// </summary>
    public static KernelEra Linux61 { get; } = new("linux-6.1", LinuxRules.Linux61)
    {
        SiteTable64 = ParaInstructionsFormat.X64Since61,
        Alternatives = AlternativeRules.Linux61,
        BugFunction = "paravirt_BUG",
        MayHaveTypes = true,
        HasTables = true,
        HasCalleeSave = true,
        // with the patch hook went the slots of init and time
        AbsentSlots = ["save_fl_irq_disable", "init.patch", "cpu.irq_enable_syscall_ret"],
    };

    /// <summary>6.8 and later, read and measured in 6.12, measured in 7.2: calls and short forms are alternatives of one address.</summary>
    public static KernelEra Linux612 { get; } = new("linux-6.12", LinuxRules.Linux612)
    {
        Source = SiteSource.DirectCallAlternatives,
        Alternatives = AlternativeRules.Linux612,
        BugFunction = "BUG_func",
        MayHaveTypes = true,
    };

    /// <summary>All supported eras, oldest first.</summary>
    public static IReadOnlyList<KernelEra> All { get; } =
    [
        Linux2620, Linux2621, Linux2622, Linux2623, Linux2624, Linux2625, Linux2627, Linux2630, Linux2630Stable, Linux42, Linux418Backports,
        Linux420,
        Linux510, Linux61, Linux612,
    ];

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

    internal SiteShapes NecessaryShapes(int bitness) => bitness == 64 ? NecessaryShapesAny | NecessaryShapes64 : NecessaryShapesAny;

    internal ParaInstructionsFormat SiteTable(int bitness) => bitness == 64 ? SiteTable64 : SiteTable32;
}
