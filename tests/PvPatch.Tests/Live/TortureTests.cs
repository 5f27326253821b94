using System.Diagnostics;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Live;

/// <summary>
/// Threads run sites while they are switched, in child processes: short here, an hour by hand (docs/live-patching.md). Shortcuts that must
/// fail show that the harness would see it.
/// </summary>
public sealed class TortureTests
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(5); // a hang is endless; a busy machine is only slow

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

    /// <summary>
    /// As on a machine so busy that within the time asked for executors do not come to run under every backend: that proves nothing, and is
    /// no fault.
    /// </summary>
    [Theory]
    [InlineData("run --sites host")]
    [InlineData("run --sites settings")]
    [InlineData("chain")]
    public void A_run_goes_on_until_everything_was_seen(string arguments)
    {
        (int code, string output) = Run($"{arguments} --seconds 0.01", s_timeout);
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

    [Theory]
    [InlineData("--sites keys")]
    [InlineData("--sites branches")]
    [InlineData("--sites calls")]
    [InlineData("--sites settings --executors 3")]
    [InlineData("--sites settings --batch 1")]
    [InlineData("--sites constants")]
    [InlineData("--sites variants")]
    [InlineData("--sites arguments")]
    [InlineData("--sites operands")]
    [InlineData("--sites words")]
    [InlineData("--sites entries")]
    [InlineData("--sites requests")]
    public void Sites_of_every_mechanism_do_what_they_were_told_at_every_execution(string arguments)
    {
        (int code, string output) = Run($"run --seconds 2 {arguments}", s_timeout);
        Assert.True(code == 0, $"exit code {code}: {output}");
    }

    [Theory]
    [InlineData("--sites keys --protocol byte-copy")]
    [InlineData("--sites branches --protocol label-left-out")]
    [InlineData("--sites keys --protocol told-early")]
    [InlineData("--sites arguments --protocol wrong-argument")]
    [InlineData("--sites operands --protocol wrong-register")]
    [InlineData("--sites words --protocol other-words")]
    [InlineData("--sites entries --protocol entry-left-out")]
    [InlineData("--sites requests --protocol told-early")]
    public void Shortcuts_with_any_mechanism_are_seen_to_crash_or_lie(string arguments)
    {
        Requirement.TwoProcessors();
        AssertSeen($"run {arguments}");
    }

    [Fact]
    public void Flips_of_key_sites_in_batches_write_exactly_the_sites_of_their_keys()
    {
        (int code, string output) = Run("flips --flips 200000", s_timeout);
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
        AssertSeen("chain --protocol no-grace");
    }

    [Theory]
    [InlineData("--kind ticket")]
    [InlineData("--kind byte")]
    [InlineData("--kind queued")]
    [InlineData("--kind ticket --executors 4")]
    [InlineData("--kind queued --executors 4")]
    [InlineData("--executors 3")]
    public void Locks_exclude_and_go_on_while_their_mode_and_kind_are_switched(string arguments)
    {
        Requirement.TwoProcessors();
        (int code, string output) = Run($"locks --seconds 2 {arguments}", s_timeout);
        Assert.True(code == 0, $"exit code {code}: {output}");
    }

    [Theory]
    [InlineData("--kind ticket --protocol torn-unlock", "")]
    [InlineData("--kind byte --protocol early-unlock", "counted", 2)]
    [InlineData("--kind ticket --executors 3 --protocol lost-kick", "no progress")]
    [InlineData("--kind ticket --protocol no-drain", "no progress")]
    [InlineData("--kind queued --executors 3 --protocol no-drain", "no progress")]
    public void Locks_that_are_wrong_are_seen_to_fail(string arguments, string fault, int seconds = 20)
    {
        Requirement.TwoProcessors();
        Assert.Contains(fault, AssertSeen($"locks {arguments}", seconds), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("--sites atomic8 --protocol byte-copy")]
    [InlineData("--sites spin --protocol no-barrier")]
    [InlineData("--sites atomic8 --protocol call-not-at-end")]
    public void Shortcuts_are_seen_to_crash_or_tear(string arguments)
    {
        Requirement.TwoProcessors();
        AssertSeen($"run {arguments}");
    }

    [Fact]
    public void A_guard_held_by_managed_code_is_seen_to_hang()
    {
        Requirement.TwoProcessors();
        for (int attempt = 0; attempt < 3; attempt++)
        {
            (int code, string output) = Run("run --seconds 2 --suppress --sites spin --protocol managed-guard", TimeSpan.FromSeconds(15));
            if (code == Hung && HasStarted(output))
            {
                return;
            }
        }

        Assert.Fail("the watchdog saw nothing");
    }

    private const int Hung = -1;
    private const int Faulted = 2; // the child's own word for what it saw

    // What a shell makes of the signals by which code that tears dies: illegal instruction, trap, abort, bus error, arithmetic, segment.
    private static readonly int[] s_crashes = [.. new[] { 4, 5, 6, 7, 8, 11 }.Select(static signal => 128 + signal)];

    /// <summary>Runs a shortcut until it is seen. A child that could not start, or failed in another way, has seen nothing.</summary>
    /// <returns>What it wrote.</returns>
    private static string AssertSeen(string arguments, int seconds = 10)
    {
        const int Attempts = 8;
        var outputs = new List<string>();
        while (outputs.Count < Attempts)
        {
            (int code, string output) = Run($"{arguments} --seconds {seconds}", s_timeout);
            if (code == Faulted || (Array.IndexOf(s_crashes, code) >= 0 && HasStarted(output)))
            {
                return output;
            }

            outputs.Add($"exit code {code}: {output}");
        }

        throw new Xunit.Sdk.XunitException(
            $"{Attempts} runs of {seconds} seconds saw nothing: the harness proves nothing\n{string.Join('\n', outputs)}");
    }

    /// <summary>Whether the child came as far as its first line, and no exception of managed code ended it.</summary>
    private static bool HasStarted(string output) =>
        output.Contains("--seed", StringComparison.Ordinal) && !output.Contains("Unhandled exception", StringComparison.Ordinal);

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
            return (Hung, output.Result + error.Result);
        }

        return (process.ExitCode, output.Result + error.Result);
    }
}
