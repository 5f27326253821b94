namespace Control;

/// <summary>Code whose mutants have a known end: what Stryker says of them shows whether the tests see the mutants.</summary>
public static class Sum
{
    /// <summary>Asked for and compared: every mutant is killed.</summary>
    public static int Compared(int a, int b) => a - b;

    /// <summary>Asked for, the answer thrown away: every mutant survives.</summary>
    public static int ThrownAway(int a, int b) => a * b;

    /// <summary>Asked for by nobody: every mutant is without coverage.</summary>
    public static int Unasked(int a, int b) => a & b;
}
