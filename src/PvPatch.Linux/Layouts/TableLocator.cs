using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Finds the words of slots that are no one table: by the symbols of the tables (2.6.24 to 4.19), else by the sites, as within a table
/// operand minus word times index is the same address at all of them. Words that neither tells are left 0; no site goes through them.
/// </summary>
internal static class TableLocator
{
    /// <summary>The symbol of a table of the layout.</summary>
    public static string SymbolOf(string table) => $"pv_{table}_ops";

    public static bool TryFind(
        SiteEvidence evidence,
        OpsLayout layout,
        SlotPlacement placement,
        KernelSymbols? symbols,
        [NotNullWhen(true)] out VirtualAddress[]? words,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        words = new VirtualAddress[layout.Count];
        error = null;
        if (placement == SlotPlacement.WordByWord)
        {
            for (int i = 0; i < words.Length && error is null; i++)
            {
                if (TryVote(evidence, type => type == i ? 0 : -1, layout[i].Name, out ulong word, out error))
                {
                    words[i] = word;
                }
            }
        }
        else
        {
            foreach (OpsTable table in layout.Tables)
            {
                if (table.Slots.Count == 0 || error is not null)
                {
                    continue;
                }

                int first = table.Slots[0].Index;
                if (symbols is not null && symbols.TryGetAddress(SymbolOf(table.Name), out VirtualAddress start))
                {
                    Fill(words, table, start.Value, evidence.Bitness / 8);
                }
                else if (TryVote(evidence, type => type >= first && type < first + table.Slots.Count ? type - first : -1, table.Name,
                    out ulong voted, out error) && voted != 0)
                {
                    Fill(words, table, voted, evidence.Bitness / 8);
                }
            }
        }

        words = error is null ? words : null;
        return words is not null;
    }

    private static void Fill(VirtualAddress[] words, OpsTable table, ulong start, int word)
    {
        foreach (OpSlot slot in table.Slots)
        {
            words[slot.Index] = unchecked(start + (ulong)((slot.Index - table.Slots[0].Index) * word));
        }
    }

    private static bool TryVote(
        SiteEvidence evidence, Func<byte, int> indexOf, string what, out ulong address, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        evidence.Vote(indexOf, out address, out int voices, out int of);
        error = of == 0 || voices * 2 > of ? null : PatchDiagnostic.Error(
            KernelDiagnosticCodes.OpsTableNotFound, $"the address of the ops table \"{what}\" cannot be told from the sites") with
        {
            Found = $"{voices} of {of} sites that agree",
            Expected = "calls through one table at most of its sites",
            Help =
                "The layout is not this kernel's, or its tables are placed in another way: give the right one, or a System.map of this "
                + "kernel.",
        };
        return error is null;
    }
}
