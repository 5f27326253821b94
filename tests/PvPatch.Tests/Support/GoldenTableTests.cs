namespace PvPatch.Tests.Support;

public sealed class GoldenTableTests
{
    private static readonly string[] s_lines =
    [
        "# what it is about",
        "# name | number | bytes",
        string.Empty,
        "a | 0x10 | fa 66 90",
        "# between",
        "b | 7 | -",
    ];

    [Fact]
    public void Rows_carry_their_line_and_are_read_by_column_name()
    {
        GoldenTable table = GoldenTable.Parse("t.txt", s_lines);
        Assert.Equal(["name", "number", "bytes"], table.Columns);
        Assert.Equal([4, 6], table.Rows.Select(row => row.Line));
        Assert.Equal([16UL, 7UL], table.Rows.Select(row => row.Number("number")));
        Assert.Equal([0xfa, 0x66, 0x90], table.Rows[0].Bytes("bytes"));
        Assert.Empty(table.Rows[1].Bytes("bytes"));
    }

    [Theory]
    [InlineData("a | 1", "t.txt:3: 2 columns, expected 3")]
    [InlineData("a | 1 | 00 | 2", "t.txt:3: 4 columns, expected 3")]
    public void A_line_with_a_wrong_number_of_columns_is_named(string line, string message)
    {
        FormatException error = Assert.Throws<FormatException>(() => GoldenTable.Parse("t.txt", [s_lines[1], string.Empty, line]));
        Assert.StartsWith(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_wrong_cell_is_named_with_its_line()
    {
        GoldenRow row = GoldenTable.Parse("t.txt", [s_lines[1], "a | x | 0"]).Rows[0];
        Assert.StartsWith("t.txt:2:", Assert.Throws<FormatException>(() => row.Number("number")).Message, StringComparison.Ordinal);
        Assert.StartsWith("t.txt:2:", Assert.Throws<FormatException>(() => row.Bytes("bytes")).Message, StringComparison.Ordinal);
        Assert.StartsWith("t.txt:2:", Assert.Throws<FormatException>(() => row["colour"]).Message, StringComparison.Ordinal);
    }
}
