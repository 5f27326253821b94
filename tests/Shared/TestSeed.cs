using System.Globalization;

namespace PvPatch.Tests.Shared;

/// <summary>
/// Where random tests start: anew in each run, printed when the first of them starts and in what each of them prints where it fails.
/// PVPATCH_TEST_SEED=n repeats a run.
/// </summary>
internal static class TestSeed
{
    private const string Variable = "PVPATCH_TEST_SEED";

    private static readonly Lazy<int> s_value = new(static () =>
    {
        bool isGiven = int.TryParse(
            Environment.GetEnvironmentVariable(Variable), NumberStyles.Integer, CultureInfo.InvariantCulture, out int given);
        int value = isGiven ? given : Random.Shared.Next();
        TestContext.Current.SendDiagnosticMessage("random tests start at {0}={1}", Variable, value);
        return value;
    });

    /// <summary>The seed of this run, for the test that asks.</summary>
    public static int Value
    {
        get
        {
            TestContext.Current.TestOutputHelper?.WriteLine(Name);
            return s_value.Value;
        }
    }

    /// <summary>The seed as it is given to the next run.</summary>
    public static string Name => string.Create(CultureInfo.InvariantCulture, $"{Variable}={s_value.Value}");

    /// <summary>Random numbers for the test that asks.</summary>
    public static Random NewRandom() => new(Value);
}
