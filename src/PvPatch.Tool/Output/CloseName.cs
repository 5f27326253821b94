namespace PvPatch.Tool.Output;

/// <summary>Finds the known word nearest to a mistyped one.</summary>
internal static class CloseName
{
    /// <summary>The nearest word, where it is at most two slips (a letter too many, missing, wrong, or two swapped) away.</summary>
    public static string? For(string typed, IEnumerable<string> known)
    {
        string? best = null;
        int least = 3;
        foreach (string word in known)
        {
            int distance = Math.Abs(word.Length - typed.Length) > 2 ? 3 : Distance(typed, word);
            if (distance < least)
            {
                (best, least) = (word, distance);
            }
        }

        return best;
    }

    private static int Distance(string a, string b)
    {
        int[,] d = new int[a.Length + 1, b.Length + 1];
        for (int i = 0; i <= a.Length; i++)
        {
            for (int j = 0; j <= b.Length; j++)
            {
                if (i == 0 || j == 0)
                {
                    d[i, j] = i + j;
                    continue;
                }

                int change = d[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
                int swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] ? d[i - 2, j - 2] + 1 : int.MaxValue;
                d[i, j] = Math.Min(Math.Min(change, swap), Math.Min(d[i - 1, j], d[i, j - 1]) + 1);
            }
        }

        return d[a.Length, b.Length];
    }
}
