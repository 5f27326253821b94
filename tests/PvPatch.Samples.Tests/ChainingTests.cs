using System.Diagnostics;
using PvPatch.Tests.Shared;

namespace PvPatch.Samples.Tests;

/// <summary>
/// The sample of block chaining: the numbers are Collatz's, the entries are one for each exit that was not linked yet, and one.
/// </summary>
public sealed class ChainingTests
{
    [Fact]
    public void chained_blocks_are_entered_once_and_unlinked_ones_again()
    {
        using Process process = Process.Start(
            new ProcessStartInfo(DotnetHost.Path, [Path.Combine(AppContext.BaseDirectory, "Chaining.dll")])
            {
                RedirectStandardOutput = true,
            })!;
        string[] lines = process.StandardOutput.ReadToEnd().Split('\n');
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        Assert.Equal("27 comes to 1 in 111 steps; ways in: 5", lines[0]); // OEIS A006577
        Assert.Equal("97 comes to 1 in 118 steps; ways in: 1", lines[1]);
        Assert.StartsWith("unlinked: Applied, 1 of 1 sites written", lines[2], StringComparison.Ordinal);
        Assert.Equal("27 comes to 1 in 111 steps; ways in: 3", lines[3]);
        Assert.Equal("97 comes to 1 in 118 steps; ways in: 1", lines[4]);
    }
}
