using System.Diagnostics;
using PvPatch.Tests.Shared;

namespace PvPatch.Samples.Tests;

/// <summary>The sample of whole implementations: what each way in leads to, before and after it is switched.</summary>
public sealed class EntriesTests
{
    [Fact]
    public void functions_vectors_blocks_and_loops_are_switched_and_given_back()
    {
        using Process process = Process.Start(
            new ProcessStartInfo(DotnetHost.Path, [Path.Combine(AppContext.BaseDirectory, "Entries.dll")])
            {
                RedirectStandardOutput = true,
            })!;
        string[] lines = process.StandardOutput.ReadToEnd().TrimEnd().Split('\n');
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        Assert.Equal(["disk: 1 2", "disk, cached: 101 102"], lines[..2]);
        Assert.Contains("  e9 ", lines[2], StringComparison.Ordinal); // jmp rel32 (SDM volume 2, JMP) where the nop was
        Assert.Contains("site disk.read Atomic8 Bound Jump", lines[2], StringComparison.Ordinal);
        Assert.Equal(
            [
                "disk: 1 2",
                "vectors of native: 10 11",
                "vectors of nested: 20 21",
                "fast: 499500, 0 loads traced", // 999 * 1000 / 2
                "traced: 499500, 1000 loads traced",
                "plain: 499500, 0 loads traced",
                "traced: 499500, 1000 loads traced",
            ],
            lines[5..]);
    }
}
