using System.Globalization;

namespace PvPatch.Benchmarks.Live;

/// <summary>What we hold ourselves to and what came out, for the table at the end of a run.</summary>
internal sealed class Goals
{
    private readonly List<(string Text, double? Value, bool Met)> _rows = [];

    /// <summary>Whether every goal was measured.</summary>
    public bool AllMeasured => _rows.TrueForAll(static r => r.Value is not null);

    // A comparison with a figure that is not there is false.
    public void AtMost(string what, double goal, double? value) => Add(what, "<=", goal, value, value <= goal);

    public void Below(string what, double goal, double? value) => Add(what, "<", goal, value, value < goal);

    public void AtLeast(string what, double goal, double? value) => Add(what, ">=", goal, value, value >= goal);

    /// <summary>Prints the table.</summary>
    /// <param name="load">The load average, for what could not be measured.</param>
    public void Print(string load)
    {
        Console.WriteLine();
        Console.WriteLine($"{"",-58}{"goal",10}{"result",10}");
        foreach ((string text, double? value, bool met) in _rows)
        {
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{text}{value,10:0.000}  {(value is null ? $"NOT MEASURED (load average {load})" : met ? "met" : "MISSED")}"));
        }
    }

    private void Add(string what, string sign, double goal, double? value, bool met) =>
        _rows.Add((string.Create(
            CultureInfo.InvariantCulture, $"{what,-58}{sign + " " + goal.ToString("0.##", CultureInfo.InvariantCulture),10}"), value, met));
}
