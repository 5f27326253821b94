using System.CommandLine;
using System.IO.Enumeration;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.CommandLine;

/// <summary>Chooses slots by a pattern: <c>irq.*</c>, <c>*pte*</c>, or a name with or without its table.</summary>
internal static class SlotFilter
{
    public static Option<string?> Option() =>
        new("--slot")
        {
            Description = "Only slots that match: a name, with or without its table, * and ? stand for anything",
            HelpName = "GLOB"
        };

    /// <summary>By type number, whether a slot is chosen; all are where there is no pattern.</summary>
    /// <exception cref="ToolFailure">No slot matches (PV7003).</exception>
    public static bool[] Choose(OpsLayout layout, string? pattern)
    {
        bool[] chosen = new bool[layout.Count];
        bool any = false;
        foreach (OpSlot slot in layout.Slots)
        {
            bool matches = pattern is null || Matches(pattern, slot.Name);
            chosen[slot.Index] = matches;
            any |= matches;
        }

        return any ? chosen : throw NoMatch(pattern!, layout.Slots.Select(static s => s.Name));
    }

    /// <summary>Whether a slot matches a pattern, with its table or without.</summary>
    public static bool Matches(string pattern, string slot) =>
        FileSystemName.MatchesSimpleExpression(pattern, slot) || FileSystemName.MatchesSimpleExpression(pattern, ShortName(slot));

    /// <summary>Checks that a pattern, where there is one, matches a slot of some plan.</summary>
    /// <exception cref="ToolFailure">No slot matches (PV7003).</exception>
    public static void Check(string? pattern, IReadOnlyList<PatchPlan> plans)
    {
        string[] slots = pattern is null
            ? [] : [.. plans.SelectMany(static p => Enumerable.Range(0, p.Count).Select(i => p[i].Label)).Distinct()];
        if (pattern is not null && !Array.Exists(slots, s => Matches(pattern, s)))
        {
            throw NoMatch(pattern, slots);
        }
    }

    private static ReadOnlySpan<char> ShortName(string slot) => slot.AsSpan(slot.IndexOf('.', StringComparison.Ordinal) + 1);

    private static ToolFailure NoMatch(string pattern, IEnumerable<string> slots)
    {
        string? near = CloseName.For(pattern, slots.SelectMany(static s => (string[])[ShortName(s).ToString(), s]));
        return new ToolFailure(
            PatchDiagnostic.Error(ToolDiagnosticCodes.NoSlotMatches, $"no slot of this kernel matches \"{pattern}\"") with
            {
                Help = near is null ? "pvpatch info lists its slots." : $"Did you mean \"{near}\"?",
            });
    }
}
