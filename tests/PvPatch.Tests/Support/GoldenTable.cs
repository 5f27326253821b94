using System.Globalization;

namespace PvPatch.Tests.Support;

/// <summary>
/// A text file with one case a line: columns separated by <c>|</c>, comment lines beginning with <c>#</c>. The first comment line
/// that holds a <c>|</c> names the columns.
/// </summary>
internal sealed class GoldenTable
{
    private GoldenTable(string name, IReadOnlyList<string> columns, IReadOnlyList<GoldenRow> rows)
    {
        Name = name;
        Columns = columns;
        Rows = rows;
    }

    public string Name { get; }

    public IReadOnlyList<string> Columns { get; }

    public IReadOnlyList<GoldenRow> Rows { get; }

    /// <summary>Reads a table that stands beside the test assembly, in the folder Golden.</summary>
    public static GoldenTable Load(string fileName)
    {
        string path = Path.Combine(AppContext.BaseDirectory, "Golden", fileName);
        return Parse(fileName, File.ReadAllLines(path));
    }

    public static GoldenTable Parse(string name, IReadOnlyList<string> lines)
    {
        string[]? columns = null;
        var rows = new List<GoldenRow>();
        for (int i = 0; i < lines.Count; i++)
        {
            string line = lines[i].Trim();
            if (line.Length == 0)
            {
                continue;
            }

            if (line[0] == '#')
            {
                if (columns is null && line.Contains('|', StringComparison.Ordinal))
                {
                    columns = Split(line[1..]);
                }

                continue;
            }

            if (columns is null)
            {
                throw new FormatException($"{name}:{i + 1}: a case before the comment line that names the columns");
            }

            string[] cells = Split(line);
            if (cells.Length != columns.Length)
            {
                throw new FormatException($"{name}:{i + 1}: {cells.Length} columns, expected {columns.Length}: {line}");
            }

            rows.Add(new GoldenRow(name, i + 1, columns, cells));
        }

        return new GoldenTable(name, columns ?? [], rows);
    }

    private static string[] Split(string line) => line.Split('|', StringSplitOptions.TrimEntries);
}

/// <summary>One case of a golden table; every error message begins with its file and line.</summary>
internal sealed class GoldenRow(string file, int line, IReadOnlyList<string> columns, IReadOnlyList<string> cells)
{
    /// <summary>File and line, for messages.</summary>
    public string Place => $"{file}:{line}";

    public string File => file;

    public int Line => line;

    /// <summary>The text of a column.</summary>
    public string this[string column]
    {
        get
        {
            for (int i = 0; i < columns.Count; i++)
            {
                if (columns[i] == column)
                {
                    return cells[i];
                }
            }

            throw Error($"there is no column '{column}'");
        }
    }

    public bool Has(string column) => columns.Contains(column);

    /// <summary>A decimal number, or a hexadecimal one after <c>0x</c>.</summary>
    public ulong Number(string column) => ParseNumber(this[column]);

    public int Int32(string column) => checked((int)Number(column));

    /// <summary>A number, or null where the column holds <c>-</c>.</summary>
    public ulong? OptionalNumber(string column) => this[column] == "-" ? null : Number(column);

    /// <summary>Hexadecimal bytes; <c>-</c> is none.</summary>
    public byte[] Bytes(string column) => ParseBytes(this[column]);

    public byte[] ParseBytes(string text)
    {
        if (text == "-")
        {
            return [];
        }

        try
        {
            return Convert.FromHexString(text.Replace(" ", string.Empty, StringComparison.Ordinal));
        }
        catch (FormatException)
        {
            throw Error($"'{text}' is not a run of hexadecimal bytes");
        }
    }

    public ulong ParseNumber(string text)
    {
        bool isHex = text.StartsWith("0x", StringComparison.Ordinal);
        NumberStyles style = isHex ? NumberStyles.AllowHexSpecifier : NumberStyles.None;
        return ulong.TryParse(isHex ? text[2..] : text, style, CultureInfo.InvariantCulture, out ulong value)
            ? value
            : throw Error($"'{text}' is not a number");
    }

    public FormatException Error(string message) => new($"{Place}: {message}");

    public override string ToString() => $"{Place}: {string.Join(" | ", cells)}";
}
