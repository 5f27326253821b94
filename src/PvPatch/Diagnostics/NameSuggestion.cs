namespace PvPatch;

/// <summary>Finds the known name nearest to a mistyped one.</summary>
internal static class NameSuggestion
{
    /// <summary>Text for a diagnostic's help: the nearest name where one is near, else how to list them.</summary>
    public static string Help(string name, IEnumerable<string> known)
    {
        string[] all = [.. known];
        string? best = null;
        int bestDistance = int.MaxValue;
        foreach (string candidate in all)
        {
            // A short name without its table ("irq_disable") is the likeliest slip.
            int distance = candidate.EndsWith("." + name, StringComparison.OrdinalIgnoreCase) ? 0 : Distance(name, candidate);
            if (distance < bestDistance)
            {
                (best, bestDistance) = (candidate, distance);
            }
        }

        if (best is not null && bestDistance <= Math.Max(2, name.Length / 3))
        {
            return $"Did you mean \"{best}\"?";
        }

        return all.Length == 0 ? "There are none yet." : $"Known: {string.Join(", ", all.Take(12))}{(all.Length > 12 ? ", …" : "")}.";
    }

    private static int Distance(string a, string b)
    {
        if (a.Length > 128 || b.Length > 128)
        {
            return int.MaxValue;
        }

        int[] before = [.. Enumerable.Range(0, b.Length + 1)];
        int[] row = new int[b.Length + 1];
        for (int i = 1; i <= a.Length; i++)
        {
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int change = char.ToLowerInvariant(a[i - 1]) == char.ToLowerInvariant(b[j - 1]) ? 0 : 1;
                row[j] = Math.Min(Math.Min(row[j - 1], before[j]) + 1, before[j - 1] + change);
            }

            (before, row) = (row, before);
        }

        return before[b.Length];
    }
}
