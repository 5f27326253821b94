using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Finds the order of slots of a kernel without type information among those known: the one that its sites allow and its tables prove.
/// </summary>
internal sealed class OlderLayouts(ElfImage elf, KernelSymbols? symbols)
{
    // The first release whose sites are direct calls, and the first with a lock table of its own.
    private static readonly KernelRelease s_directCalls = new(6, 8, 0);
    private static readonly KernelRelease s_lockTable = new(7, 0, 0);

    private readonly LayoutProof _proof = new(elf, symbols);
    private List<KnownOrder> _allowed = [];

    /// <summary>The orders that the sites allow, proved or not.</summary>
    public IReadOnlyList<KnownOrder> Allowed => _allowed;

    /// <summary>Whether a symbol of the table was needed, and was not there.</summary>
    public bool LacksTable { get; private set; }

    /// <summary>The orders that the image proves.</summary>
    public IReadOnlyList<KnownOrder> Proved { get; private set; } = [];

    /// <summary>Finds the layout of a kernel with a table of sites, which have type numbers.</summary>
    /// <param name="evidence">Evidence of its sites.</param>
    /// <param name="placement">Arrangement of its slots.</param>
    /// <param name="found">The layout.</param>
    /// <returns>Whether one is proved, or several that have the same slots for all sites.</returns>
    public bool TryFind(SiteEvidence evidence, SlotPlacement placement, [NotNullWhen(true)] out FoundLayout? found)
    {
        _allowed = [.. KernelLayouts.For(evidence.Bitness, placement).Where(o => o.First < s_directCalls && Allows(o.Layout, evidence))];

        // The seven types of 2.6.20 and 2.6.21 depend on no option, so there is nothing to prove.
        Proved = [.. _allowed.Where(o => placement == SlotPlacement.WordByWord
            || (TryFindWords(o.Layout, evidence, placement, out VirtualAddress[]? words) && Agrees(o.Layout, evidence, words)
                && _proof.Holds(o.Layout, words)))];
        return TryChoose([.. evidence.CalledTypes.Union(evidence.JumpedTypes).Select(static t => (int)t)], out found);
    }

    /// <summary>Finds the layout of a kernel whose sites are direct calls (6.8 and later): by the words of its tables.</summary>
    /// <param name="found">The layout.</param>
    /// <returns>Whether one is proved, or several that have the same slots in all words.</returns>
    public bool TryFind([NotNullWhen(true)] out FoundLayout? found)
    {
        found = null;
        if (symbols is null || !symbols.TryGetAddress(SlotWordLocator.MainTable, out VirtualAddress main))
        {
            LacksTable = true;
            return false;
        }

        VirtualAddress? locks = symbols.TryGetAddress(SlotWordLocator.LockTable, out VirtualAddress table) ? table : null;
        _allowed = [.. KernelLayouts.For(elf.Bitness, SlotPlacement.OneTable)
            .Where(o => o.Last >= s_directCalls && HasLocks(o) == locks is not null)];
        Proved = [.. _allowed.Where(o => Fills(o.Layout, main, locks) && _proof.Holds(o.Layout, Words(o.Layout, main, locks)))];
        return TryChoose(Proved.Count == 0 ? [] : [.. Enumerable.Range(0, Proved.Max(static o => o.Layout.Count))], out found);
    }

    private static bool HasLocks(KnownOrder order) => order.Last >= s_lockTable && order.Layout.Tables[^1].Name == "lock";

    /// <summary>Chooses among the proved orders, which must have the same slots at the indexes that matter.</summary>
    private bool TryChoose(IReadOnlyList<int> used, [NotNullWhen(true)] out FoundLayout? found)
    {
        found = null;
        IReadOnlyList<KnownOrder> left = Proved;
        if (KernelBanner.Release(elf, symbols) is string told && KernelRelease.TryParse(told, out KernelRelease release)
            && left.Where(o => o.Covers(release)).ToArray() is { Length: > 0 } ofRelease)
        {
            left = ofRelease;
        }

        if (left.Count == 0 || left.Any(o => !AreAlike(o.Layout, left[0].Layout, used)))
        {
            return false;
        }

        OpsLayout layout = left[0].Layout;
        found = new FoundLayout(layout, KernelLayouts.LockTableOf(layout, symbols))
        {
            Alike = [.. left.Skip(1).Select(static o => o.Name)],
        };
        return true;
    }

    private static bool AreAlike(OpsLayout left, OpsLayout right, IReadOnlyList<int> used) => used.All(t =>
        t < left.Count && t < right.Count && left[t].Name == right[t].Name && left[t].Kind == right[t].Kind
        && left[t].Convention == right[t].Convention);

    /// <summary>Whether every site has a slot in the layout, and is a jump where that slot is one.</summary>
    private static bool Allows(OpsLayout layout, SiteEvidence evidence) =>
        evidence.HighestType < layout.Count
        && evidence.CalledTypes.All(t => layout[t].Kind == SlotKind.Call)
        && evidence.JumpedTypes.All(t => layout[t].Kind == SlotKind.Jump);

    // Where the tables' symbols tell the words, sites of an order that is off by a slot go past them.
    private static bool Agrees(OpsLayout layout, SiteEvidence evidence, VirtualAddress[] words) => layout.Tables.All(table =>
        table.Slots.Count == 0 || evidence.GoesThrough(words, t => t >= table.Slots[0].Index && t <= table.Slots[^1].Index));

    private bool TryFindWords(
        OpsLayout layout, SiteEvidence evidence, SlotPlacement placement, [NotNullWhen(true)] out VirtualAddress[]? words)
    {
        if (placement != SlotPlacement.OneTable)
        {
            return TableLocator.TryFind(evidence, layout, placement, symbols, out words, out _);
        }

        evidence.Vote(static type => type, out ulong table, out int voices, out int of);
        words = Words(layout, table, null);
        return voices * 2 > of;
    }

    private VirtualAddress[] Words(OpsLayout layout, VirtualAddress main, VirtualAddress? locks)
    {
        int word = elf.Bitness / 8;
        int first = locks is null ? layout.Count : layout.Tables[^1].Slots[0].Index;
        return [.. layout.Slots.Select(s => s.Index < first ? main + (long)s.Index * word : locks!.Value + (long)(s.Index - first) * word)];
    }

    // No other symbol begins within the table.
    private bool Fills(OpsLayout layout, VirtualAddress main, VirtualAddress? locks)
    {
        long last = (long)((locks is null ? layout.Count : layout.Tables[^1].Slots[0].Index) - 1) * (elf.Bitness / 8);
        return symbols!.TryGetName(main + last, out _, out long offset) && offset == last;
    }
}

/// <summary>The layout of a kernel, and how it is known.</summary>
/// <param name="Layout">All slots, those of a lock table of its own last.</param>
/// <param name="LockTable">
/// Index of the first slot of a lock table of its own; the number of slots where the main table has the lock slots.
/// </param>
internal sealed record FoundLayout(OpsLayout Layout, int LockTable)
{
    /// <summary>Names of other known orders that the image proves as well, and that are the same for all its sites.</summary>
    public IReadOnlyList<string> Alike { get; init; } = [];
}
