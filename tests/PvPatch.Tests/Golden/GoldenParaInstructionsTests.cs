using PvPatch.Paravirt;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>Every table of <c>parainstructions.txt</c> read, and written again.</summary>
public sealed class GoldenParaInstructionsTests
{
    // The table's formats are the layouts on disk. What the clobber bits mean changed in 2.6.30 without a change of layout, so two
    // of the engine's formats stand for one row; both must agree with it.
    private static readonly Dictionary<string, ParaInstructionsFormat[]> s_formats = new()
    {
        ["i386-2.6.20"] = [ParaInstructionsFormat.I386Before2630],
        ["i386"] = [ParaInstructionsFormat.I386],
        ["x86-64"] = [ParaInstructionsFormat.X64Before2630, ParaInstructionsFormat.X64],
        ["x86-64-4.20"] = [ParaInstructionsFormat.X64Since420],
        ["x86-64-6.1"] = [ParaInstructionsFormat.X64Since61],
    };

    [Fact]
    public void Every_table_reads_as_its_rows_say()
    {
        foreach ((ParaInstructionsFormat format, byte[] section, GoldenRow[] rows) in Tables())
        {
            Assert.True(format.TryGetCount(section.Length, out int count));
            Assert.Equal(rows.Length, count);
            Assert.True(format.TryRead(section, out ParaInstruction[]? records, out PatchDiagnostic? error), error?.ToString());
            for (int i = 0; i < rows.Length; i++)
            {
                Assert.True(records![i] == Record(rows[i]), $"{rows[i]}: engine {records[i]}");
            }
        }
    }

    [Fact]
    public void Every_table_is_written_byte_for_byte()
    {
        foreach ((ParaInstructionsFormat format, byte[] section, GoldenRow[] rows) in Tables())
        {
            byte[] written = new byte[section.Length];
            format.Write([.. rows.Select(Record)], written);
            Assert.True(written.AsSpan().SequenceEqual(section), $"{rows[0].Place}: {HexBytes.Format(written)}");
        }
    }

    [Fact]
    public void A_table_of_another_size_is_refused_with_what_was_found()
    {
        foreach (ParaInstructionsFormat format in ParaInstructionsFormat.All)
        {
            for (int size = 0; size < 4 * format.Stride; size++)
            {
                int rest = size % format.Stride;
                bool fits = rest == 0 || rest >= format.ShortestLastRecord;
                bool read = format.TryRead(new byte[size], out ParaInstruction[]? records, out PatchDiagnostic? error, fileOffset: 0x1234);
                Assert.Equal(fits, read);
                if (fits)
                {
                    Assert.Equal((size + format.Stride - 1) / format.Stride, records!.Length);
                    continue;
                }

                Assert.Equal(DiagnosticCodes.TableStride, error!.Code);
                Assert.Equal(0x1234, error.FileOffset);
                Assert.StartsWith($"{size} bytes", error.Found, StringComparison.Ordinal);
                Assert.Contains($"{format.Stride}", error.Expected, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void An_address_that_does_not_fit_is_not_written()
    {
        byte[] section = new byte[8];
        Assert.Throws<ArgumentException>(() => ParaInstructionsFormat.I386.Write([new ParaInstruction(0x1_0000_0000, 0, 6, 0)], section));
    }

    private static IEnumerable<(ParaInstructionsFormat Format, byte[] Section, GoldenRow[] Rows)> Tables()
    {
        foreach (IGrouping<string, GoldenRow> group in GoldenTable.Load("parainstructions.txt")
            .Rows.GroupBy(row => $"{row["format"]}|{row["table"]}"))
        {
            GoldenRow[] rows = [.. group];
            byte[] section = [.. rows.SelectMany(row => row.Bytes("record bytes"))];
            foreach (ParaInstructionsFormat format in s_formats[rows[0]["format"]])
            {
                yield return (format, section, rows);
            }
        }
    }

    private static ParaInstruction Record(GoldenRow row)
    {
        string clobbers = row["clobbers"].Trim('(', ')');
        return new ParaInstruction(
            row.Number("address"), (byte)row.Number("type"), (byte)row.Number("len"),
            clobbers == "-" ? (ushort)0 : (ushort)row.ParseNumber(clobbers));
    }
}
