using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Tables;

/// <summary>
/// Finds the words of all slots of a kernel without type numbers (6.8 and later): by the symbols of its tables, else by the addresses that
/// its direct calls go through.
/// </summary>
internal sealed class SlotWordLocator(CodeImage code, AltInstrTable alternatives, KernelSymbols? symbols)
{
    /// <summary>The symbol of the main table.</summary>
    public const string MainTable = "pv_ops";

    /// <summary>The symbol of the lock table, where it is one of its own (7.0 and later).</summary>
    public const string LockTable = "pv_ops_lock";

    private readonly int _word = code.Bitness / 8;

    /// <param name="layout">All slots; those of the lock table last, where it is a table of its own.</param>
    /// <param name="lockTable">The index of the first slot of a lock table of its own; the number of slots where there is none.</param>
    /// <param name="isTable">Whether an address can be that of the main table: its words hold what an ops table holds.</param>
    /// <param name="words">The address of each slot's word.</param>
    /// <param name="error">The reason where there are none.</param>
    public bool TryFind(
        OpsLayout layout, int lockTable, Func<VirtualAddress[], bool> isTable, [NotNullWhen(true)] out VirtualAddress[]? words,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (symbols is not null && symbols.TryGetAddress(MainTable, out VirtualAddress main))
        {
            VirtualAddress locks = VirtualAddress.Zero;
            if (lockTable == layout.Count || symbols.TryGetAddress(LockTable, out locks))
            {
                words = Words(layout, lockTable, main, locks);
                return true;
            }
        }

        ulong lowest = LowestOperand();
        for (int slot = 0; lockTable == layout.Count && slot < layout.Count && lowest != ulong.MaxValue; slot++)
        {
            words = Words(layout, lockTable, new VirtualAddress(lowest) + (-(long)slot * _word), default);
            if (isTable(words))
            {
                return true;
            }
        }

        words = null;
        error = PatchDiagnostic.Error(KernelDiagnosticCodes.OpsTableNotFound, "the addresses of the ops tables are not known") with
        {
            Found = symbols is null ? "no symbols" : "symbols without pv_ops" + (lockTable == layout.Count ? "" : " and pv_ops_lock"),
            Expected = "the symbols of the kernel's ops tables",
            Help = "Give a System.map of this kernel.",
        };
        return false;
    }

    private VirtualAddress[] Words(OpsLayout layout, int lockTable, VirtualAddress main, VirtualAddress locks) =>
        [.. layout.Slots.Select(s => s.Index < lockTable ? main + (long)s.Index * _word : locks + (long)(s.Index - lockTable) * _word)];

    private ulong LowestOperand()
    {
        ulong lowest = ulong.MaxValue;
        foreach (ref readonly AltInstr record in alternatives.Records)
        {
            if (record.IsDirectCall && DirectCall.TryReadSlotAddress(code, record, out VirtualAddress word, out _))
            {
                lowest = Math.Min(lowest, word.Value);
            }
        }

        return lowest;
    }
}
