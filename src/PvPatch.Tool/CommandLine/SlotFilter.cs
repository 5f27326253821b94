using System.CommandLine;
using System.IO.Enumeration;
using PvPatch.Mechanisms;

namespace PvPatch.Tool.CommandLine;

/// <summary>Chooses slots by a pattern: <c>irq.*</c>, <c>*pte*</c>, or a name with or without its table.</summary>
internal static class SlotFilter
{
    public static Option<string?> Option() =>
        new("--slot") { Description = "Only slots that match: a name, with or without its table, * and ? stand for anything", HelpName = "GLOB" };

    /// <summary>By type number, whether a slot is chosen; all are where there is no pattern.</summary>
    /// <exception cref="ToolFailure">No slot matches (PV7003).</exception>
    public static bool[] Choose(OpsLayout layout, string? pattern)
    {
        bool[] chosen = new bool[layout.Count];
        bool any = false;
        foreach (OpSlot slot in layout.Slots)
        {
            bool matches = pattern is null
                || FileSystemName.MatchesSimpleExpression(pattern, slot.Name)
                || FileSystemName.MatchesSimpleExpression(pattern, slot.ShortName);
            chosen[slot.Index] = matches;
            any |= matches;
        }

        if (any)
        {
            return chosen;
        }

        string? near = NameSuggestion.For(pattern!, layout.Slots.SelectMany(static s => (string[])[s.ShortName, s.Name]));
        throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.NoSlotMatches, $"no slot of this kernel matches \"{pattern}\"") with
        {
            Help = near is null ? "pvpatch info lists its slots." : $"Did you mean \"{near}\"?",
        });
    }
}
