using PvPatch.Machine;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>The thunks of <c>thunks.txt</c>, byte for byte.</summary>
public sealed class GoldenThunkTests
{
    [Fact]
    public void Every_thunk_has_the_tables_bytes()
    {
        var wrong = new List<string>();
        foreach (GoldenRow row in GoldenTable.Load("thunks.txt").Rows)
        {
            int bitness = row.Int32("bits");
            ThunkCode request = Request(row, bitness);
            VectorSave vector = Vector(row);
            InlineBody code = InlineBody.Create(a => request.Write(a, bitness, vector));
            Assert.True(
                BodyBuilder.TryBuild(code, request.Convention, bitness, out AssembledBody? body, out PatchDiagnostic? error),
                $"{row.Place}: {error}");
            byte[] bytes = new byte[body.Bytes.Length];
            Assert.True(CodeTemplate.Create(body, bytes.Length, NopStyle.Default(bitness)).TryWrite(row.Number("site"), bytes), row.Place);
            if (!row.Bytes("bytes").AsSpan().SequenceEqual(bytes))
            {
                wrong.Add($"{row.Place}: table {row["bytes"]}, engine {HexBytes.Format(bytes)}");
            }
        }

        Assert.True(wrong.Count == 0, string.Join(Environment.NewLine, wrong));
    }

    /// <summary>A thunk that saves all there is fits, whatever else it does.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void The_longest_thunk_can_be_made(int form)
    {
        CallConvention from = CallConvention.Create(
            "from", [.. Enumerable.Range(10, 6).Select(RegisterSet.General)], RegisterSet.Rbx, RegisterSet.None);
        var request = new ThunkCode(0x7f0000001000, RegisterSet.All.Except(RegisterSet.Rsp), CallConvention.SysV)
        {
            From = from,
            CallerArgument = 5,
        };
        var vector = new VectorSave((VectorSaveForm)form, 0x600e7, 11008);
        InlineBody code = InlineBody.Create(a => request.Write(a, 64, vector));
        Assert.True(BodyBuilder.TryBuild(code, request.Convention, 64, out _, out PatchDiagnostic? error), error?.ToString());
    }

    private static ThunkCode Request(GoldenRow row, int bitness)
    {
        Assert.True(RegisterSet.TryParse(row["saves"], out RegisterSet saves), row.Place);
        CallConvention convention = row["convention"] switch
        {
            "SysV" => CallConvention.SysV,
            "KernelSysV" => CallConvention.KernelSysV,
            "WindowsX64" => CallConvention.WindowsX64,
            "I386RegParm" => CallConvention.I386RegParm,
            string other => throw row.Error($"{other} is no convention"),
        };
        CallConvention? from = null;
        if (row["from"] != "-")
        {
            string[] sides = row["from"].Split('>');
            from = CallConvention.Create(
                "host", [.. sides[0].Split(',').Select(static r => RegisterSet.Parse(r))], RegisterSet.Parse(sides[1]), RegisterSet.None);
        }

        return new ThunkCode(bitness == 64 ? 0x7f0000001000UL : 0x8001000UL, saves, convention)
        {
            From = from,
            CallerArgument = (int?)row.OptionalNumber("caller"),
        };
    }

    private static VectorSave Vector(GoldenRow row)
    {
        if (row["vector"] == "-")
        {
            return default;
        }

        string[] words = row["vector"].Split(' ');
        return new VectorSave(
            Enum.Parse<VectorSaveForm>(words[0], ignoreCase: true), (uint)row.ParseNumber(words[1]), (int)row.ParseNumber(words[2]));
    }
}
