using System.Diagnostics;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Live;

/// <summary>
/// Threads run sites while they are switched, in child processes: short here, an hour by hand (docs/live-patching.md). Shortcuts that must
/// fail show that the harness would see it.
/// </summary>
public sealed class TortureTests
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromSeconds(120);

    [Theory]
    [InlineData("--sites atomic8")]
    [InlineData("--sites atomic8 --batch 1")]
    [InlineData("--sites atomic16")]
    [InlineData("--sites spin")]
    [InlineData("--sites spin --batch 1")]
    [InlineData("--sites forward")]
    [InlineData("--sites host")]
    [InlineData("--sites mixed --executors 3")]
    [InlineData("--sites mixed --links")]
    [InlineData("--sites atomic8 --links --batch 16")]
    public void Sites_switched_under_running_threads_never_tear(string arguments)
    {
        (int code, string output) = Run($"run --seconds 2 {arguments}", s_timeout);
        Assert.True(code == 0, $"exit code {code}: {output}");
    }

    [Theory]
    [InlineData("--sites spin")]
    [InlineData("--sites mixed")]
    public void The_garbage_collector_and_a_guard_never_wait_for_each_other(string arguments)
    {
        (int code, string output) = Run($"run --seconds 2 --collect --suppress {arguments}", s_timeout);
        Assert.True(code == 0, $"exit code {code}: {output}");
    }

    [Fact]
    public void Blocks_unlinked_and_retired_under_running_threads_are_never_entered_again()
    {
        (int code, string output) = Run("chain --seconds 3", s_timeout);
        Assert.True(code == 0, $"exit code {code}: {output}");
    }

    [Fact]
    public void Room_taken_without_a_grace_period_is_seen_to_crash()
    {
        Requirement.TwoProcessors();
        for (int attempt = 0; attempt < 5; attempt++)
        {
            (int code, _) = Run("chain --seconds 10 --protocol no-grace", s_timeout);
            Assert.NotEqual(64, code);
            if (code is not (0 or 3))
            {
                return;
            }
        }

        Assert.Fail("five runs of ten seconds saw nothing: the harness proves nothing");
    }

    [Theory]
    [InlineData("--sites atomic8 --protocol byte-copy")]
    [InlineData("--sites spin --protocol no-barrier")]
    [InlineData("--sites atomic8 --protocol call-not-at-end")]
    public void Shortcuts_are_seen_to_crash_or_tear(string arguments)
    {
        Requirement.TwoProcessors();
        for (int attempt = 0; attempt < 5; attempt++)
        {
            (int code, _) = Run($"run --seconds 10 {arguments}", s_timeout);
            Assert.NotEqual(64, code); // the command line was understood
            if (code is not (0 or 3))
            {
                return;
            }
        }

        Assert.Fail("five runs of ten seconds saw nothing: the harness proves nothing");
    }

    [Fact]
    public void A_guard_held_by_managed_code_is_seen_to_hang()
    {
        Requirement.TwoProcessors();
        for (int attempt = 0; attempt < 3; attempt++)
        {
            (int code, _) = Run("run --seconds 2 --suppress --sites spin --protocol managed-guard", TimeSpan.FromSeconds(15));
            if (code == Hung)
            {
                return;
            }
        }

        Assert.Fail("the watchdog saw nothing");
    }

    private const int Hung = -1;

    private static (int Code, string Output) Run(string arguments, TimeSpan timeout)
    {
        var start = new ProcessStartInfo(DotnetHost.Path)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, "PvPatch.LiveTorture.dll"));
        foreach (string argument in $"{arguments} --seed {TestSeed.Value}".Split(' '))
        {
            start.ArgumentList.Add(argument);
        }

        // A crash is expected here; a core file of it is not wanted.
        start.Environment["DOTNET_DbgEnableMiniDump"] = "0";
        using Process process = Process.Start(start)!;
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(timeout))
        {
            process.Kill();
            process.WaitForExit();
            return (Hung, "did not end in time");
        }

        return (process.ExitCode, output.Result + error.Result);
    }
}
