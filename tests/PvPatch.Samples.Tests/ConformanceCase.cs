using System.Globalization;
using RiscV.Isa;

namespace PvPatch.Samples.Tests;

/// <summary>One line of the golden table: instruction, two inputs, what comes of it.</summary>
internal sealed record ConformanceCase(Op Op, string First, string Second, string Expected)
{
    public Format Format => IsaTable.Of(Op).Format;

    public static IReadOnlyList<ConformanceCase> All { get; } =
    [
        .. File.ReadLines(Path.Combine(AppContext.BaseDirectory, "Golden", "rv64im.txt"))
            .Where(static l => l.Length > 0 && l[0] != '#')
            .Select(static l => l.Split('|', StringSplitOptions.TrimEntries))
            .Select(static w => new ConformanceCase(Enum.Parse<Op>(w[0], ignoreCase: true), w[1], w[2], w[3])),
    ];

    public static ulong Hex(string text) => ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    public static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);

    public override string ToString() => $"{IsaTable.Of(Op).Name} | {First} | {Second} | {Expected}";
}
