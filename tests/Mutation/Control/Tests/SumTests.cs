namespace Control.Tests;

public sealed class SumTests
{
    [Fact]
    public void Compared() => Assert.Equal(3, Sum.Compared(5, 2));

    [Fact]
    public void Thrown_away() => _ = Sum.ThrownAway(5, 2);
}
