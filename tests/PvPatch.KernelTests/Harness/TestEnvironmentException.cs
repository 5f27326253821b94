namespace PvPatch.KernelTests.Harness;

/// <summary>
/// The machine lacks something a kernel test needs (a tool, a reachable archive): no verdict about PvPatch.
/// <see cref="Require"/> turns it into a skipped test, or a failed one where tools are demanded.
/// </summary>
public sealed class TestEnvironmentException : Exception
{
    public TestEnvironmentException()
    {
    }

    public TestEnvironmentException(string message)
        : base(message)
    {
    }

    public TestEnvironmentException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
