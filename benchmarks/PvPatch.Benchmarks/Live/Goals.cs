using System.Globalization;

namespace PvPatch.Benchmarks.Live;

/// <summary>What we hold ourselves to and what came out, for the table at the end of a run.</summary>
internal sealed class Goals
{
    private readonly List<string> _rows = [];

    public void AtMost(string what, double goal, double value) => Add(what, "<=", goal, value, value <= goal);

    public void Below(string what, double goal, double value) => Add(what, "<", goal, value, value < goal);

    public void AtLeast(string what, double goal, double value) => Add(what, ">=", goal, value, value >= goal);

    public void Print()
    {
        Console.WriteLine();
        Console.WriteLine($"{"",-58}{"goal",10}{"result",10}");
        _rows.ForEach(Console.WriteLine);
    }

    private void Add(string what, string sign, double goal, double value, bool met) =>
        _rows.Add(string.Create(CultureInfo.InvariantCulture, $"{what,-58}{sign + " " + goal.ToString("0.##", CultureInfo.InvariantCulture),10}{value,10:0.000}  {(met ? "met" : "MISSED")}"));
}
