using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>
/// The golden tables are only worth something if their bytes come from elsewhere: here GNU as reads every assembly column, at the
/// address of the case, and must arrive at the bytes beside it.
/// </summary>
public sealed class GoldenTablesAssembleTests
{
    // Where a case has no address its bytes do not depend on one.
    private const ulong AnyAddress = 0x1000;

    public static TheoryData<string> Tables =>
        ["bodies.txt", "nops.txt", "decisions.txt", "clobbers.txt", "parainstructions.txt", "branches.txt", "thunks.txt"];

    [Theory]
    [MemberData(nameof(Tables))]
    public void Every_assembly_column_assembles_to_the_bytes_beside_it(string table)
    {
        GnuAssembler.RequireTools();
        IReadOnlyList<GoldenRow> rows = GoldenTable.Load(table).Rows;
        Assert.NotEmpty(rows);

        var wrong = new List<string>();
        foreach (IGrouping<int, GoldenRow> group in rows.GroupBy(Bitness))
        {
            GoldenRow[] cases = [.. group];
            IReadOnlyList<byte[]> assembled = GnuAssembler.Assemble(group.Key, [.. cases.Select(Piece)]);
            for (int i = 0; i < cases.Length; i++)
            {
                byte[] expected = ExpectedBytes(cases[i]);
                if (!expected.AsSpan().SequenceEqual(assembled[i]))
                {
                    wrong.Add(
                        $"{cases[i].Place}: table {Convert.ToHexString(expected)}, as {Convert.ToHexString(assembled[i])}: "
                        + $"{cases[i]["assembly"]}");
                }
            }
        }

        Assert.True(wrong.Count == 0, string.Join(Environment.NewLine, wrong));
    }

    internal static byte[] ExpectedBytes(GoldenRow row)
    {
        if (row.Has("original -> expected"))
        {
            return row.ParseBytes(row["original -> expected"].Split("->", StringSplitOptions.TrimEntries)[1]);
        }

        return row.Bytes(row.Has("record bytes") ? "record bytes" : "bytes");
    }

    private static int Bitness(GoldenRow row) => row.Has("bits") ? row.Int32("bits") : 64;

    private static AssemblyPiece Piece(GoldenRow row)
    {
        ulong address = row.Has("site") ? row.OptionalNumber("site") ?? AnyAddress : AnyAddress;
        string text = row["assembly"] == "-" ? string.Empty : row["assembly"];
        return new AssemblyPiece(address, text, row.File, row.Line);
    }
}
