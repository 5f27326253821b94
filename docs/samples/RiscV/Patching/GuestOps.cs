using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using RiscV.Isa;

namespace RiscV.Patching;

/// <summary>
/// The operations that translated code leaves open, and what holds at their sites. This contract is all that translator and backends share:
/// any backend may stand at any site at any moment, so each must keep it alone.
/// </summary>
/// <remarks>
/// <code>
/// everywhere   rbx = host address of guest address 0, rbp = CpuState, r15 = ticks left; rsi, rdi and r8 to r14 belong to the translator
/// mem.*        rdx = guest address (64 bits), rcx = its low 32 bits, rax = value to store; a load's value is left in rax, extended
/// timer.tick   rcx = instructions of the block that begins; subtracts rcx from r15 and leaves the sign in the flags. Destroys nothing else
/// trap.*       does not come back: the return address says where it happened
/// </code>
/// A site is one instruction of six bytes for good: the inlined body must be a single instruction (cs prefixes fill it up), and a call
/// ends at the site's end, so a thread that was stopped anywhere finds sense when it goes on. Inside an aligned eight bytes one store
/// changes it. Two things keep the return address the site's own: no forwarding island makes the call, for one store needs none; and no
/// thunk does, for what is called here keeps what the site does not allow. A C function does not: <see cref="Stubs.EmitCall"/> makes
/// one that does.
/// </remarks>
internal static class GuestOps
{
    /// <summary>Length of every site: that of <c>call [rip+slot]</c>, and enough for the longest inlined body.</summary>
    public const int Budget = 6;

    public const SitePlacement Placement = SitePlacement.InsideAligned8;

    public static IReadOnlyList<Op> Loads { get; } = [Op.Lb, Op.Lh, Op.Lw, Op.Ld, Op.Lbu, Op.Lhu, Op.Lwu];

    public static IReadOnlyList<Op> Stores { get; } = [Op.Sb, Op.Sh, Op.Sw, Op.Sd];

    public static IReadOnlyList<Op> Accesses { get; } = [.. Loads, .. Stores];

    public static OpsLayout Layout { get; } = OpsLayout.Create(
        static b => b
            .Table("mem", static t =>
            {
                foreach (Op op in Accesses)
                {
                    t.Slot(NameOf(op));
                }
            })
            .Table("timer", static t => t.Slot("tick"))
            .Table("trap", static t => t.Slot("ecall").Slot("ebreak").Slot("illegal").Slot("fetch")),
        "guest");

    public static OpSlot Tick { get; } = Layout["timer.tick"];

    public static OpSlot Ecall { get; } = Layout["trap.ecall"];

    public static OpSlot Ebreak { get; } = Layout["trap.ebreak"];

    public static OpSlot Illegal { get; } = Layout["trap.illegal"];

    public static OpSlot FetchMisaligned { get; } = Layout["trap.fetch"];

    /// <summary>What a body may destroy: the scratch registers. No guest register is in a vector.</summary>
    public static RegisterSet Clobbers => RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Rdx | RegisterSet.Flags | RegisterSet.Vector;

    /// <summary>
    /// What a body at <c>timer.tick</c> may destroy or change: PvPatch would save and restore the ticks around it, if it did not know that
    /// they are its result.
    /// </summary>
    public static RegisterSet TickClobbers => RegisterSet.R15 | RegisterSet.Flags | RegisterSet.Vector;

    /// <summary>The slot of a load or store.</summary>
    public static OpSlot Access(Op op) => Layout[SlotName(op)];

    public static string SlotName(Op op) => $"mem.{NameOf(op)}";

    private static string NameOf(Op op) => IsaTable.Of(op).Name;
}
