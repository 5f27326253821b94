namespace PvPatch.Tool.Output;

/// <summary>Breaks a list of short texts into lines.</summary>
internal static class Lines
{
    /// <summary>
    /// As many pieces to a line as fit; a separator stays at the end of a broken line. A piece that is too long by itself is not cut.
    /// </summary>
    public static List<string> Wrap(IReadOnlyList<string> pieces, string separator, int width)
    {
        var lines = new List<string>();
        string line = "";
        foreach (string piece in pieces)
        {
            if (line.Length > 0 && line.Length + separator.Length + piece.Length > width)
            {
                lines.Add(line + separator.TrimEnd());
                line = piece;
                continue;
            }

            line = line.Length == 0 ? piece : line + separator + piece;
        }

        lines.Add(line);
        return lines;
    }
}
