namespace Xunit;

/// <summary>What the tests use of xunit 3 and xunit 2 has not.</summary>
internal static class Xunit3
{
    /// <summary>The mark by which xunit 2.9 knows an exception that skips.</summary>
    private const string SkipMark = "$XunitDynamicSkip$";

    extension(Assert)
    {
        public static void Skip(string reason) => throw new InvalidOperationException(SkipMark + reason);

        public static void SkipUnless(bool condition, string reason) => Assert.SkipWhen(!condition, reason);

        public static void SkipWhen(bool condition, string reason)
        {
            if (condition)
            {
                Assert.Skip(reason);
            }
        }
    }
}

/// <summary>The running test: nobody listens here.</summary>
internal sealed class TestContext
{
    public static TestContext Current { get; } = new();

    public ITestOutputHelper? TestOutputHelper => null;

    public (string TestDisplayName, int Row)? Test => null;

    public void SendDiagnosticMessage(string format, params object?[] arguments)
    {
    }
}
