namespace PvPatch.KernelTests.Harness;

/// <summary>Debian's control format: stanzas of "Field: value", continued by lines that begin with a blank.</summary>
internal static class ControlText
{
    /// <summary>The stanzas in order; field names compare without case, comment lines are left out.</summary>
    public static IEnumerable<Dictionary<string, string>> Stanzas(string text)
    {
        Dictionary<string, string> stanza = new(StringComparer.OrdinalIgnoreCase);
        string? field = null;
        foreach (string line in text.Split('\n'))
        {
            if (line.StartsWith('#'))
            {
                continue;
            }

            if (string.IsNullOrWhiteSpace(line))
            {
                if (stanza.Count > 0)
                {
                    yield return stanza;
                }

                stanza = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
                field = null;
                continue;
            }

            int colon = line.IndexOf(':', StringComparison.Ordinal);
            if (line[0] is ' ' or '\t')
            {
                if (field is not null)
                {
                    stanza[field] += $"\n{line.Trim()}";
                }
            }
            else if (colon > 0)
            {
                field = line[..colon];
                stanza[field] = line[(colon + 1)..].Trim();
            }
        }

        if (stanza.Count > 0)
        {
            yield return stanza;
        }
    }
}
