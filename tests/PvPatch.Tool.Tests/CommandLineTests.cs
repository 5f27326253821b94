using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>Help, mistakes on the command line, colours, cancellation, output that cannot be written.</summary>
public sealed class CommandLineTests : IDisposable
{
    private static readonly string[] s_commands = [
        "demo", "info", "sites", "plan", "explain", "patch", "revert", "verify", "diff", "allowed"];

    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Help_lists_every_command_with_an_example_and_the_exit_codes()
    {
        string help = ToolRunner.Run("--help").Succeeds().Out;
        foreach (string command in s_commands)
        {
            Assert.Contains($"\n  pvpatch {command}", help, StringComparison.Ordinal);
        }

        foreach (int exitCode in (int[])[0, 1, 2, 3, 4, 5, 6, 7, 130])
        {
            Assert.Matches($"\n  {exitCode} +[a-z]", help);
        }
    }

    [Fact]
    public void Help_of_each_command_describes_it_and_gives_examples()
    {
        foreach (string command in s_commands)
        {
            string help = ToolRunner.Run(command, "--help").Succeeds().Out;
            Assert.Contains("Description:", help, StringComparison.Ordinal);
            Assert.Contains("Examples:", help, StringComparison.Ordinal);
            Assert.Contains($"  pvpatch {command}", help, StringComparison.Ordinal);
            Assert.Contains("--json", help, StringComparison.Ordinal);
            Assert.Contains("Exit codes:", help, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Without_a_command_there_is_help_and_a_failure()
    {
        ToolResult result = ToolRunner.Run();
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("Commands:", result.Out, StringComparison.Ordinal);
    }

    [Fact]
    public void The_version_is_told() => Assert.Matches(@"^\d+\.\d+\.\d+", ToolRunner.Run("--version").Succeeds().Out);

    [Theory]
    [InlineData("pacth", "patch")]
    [InlineData("inf", "info")]
    public void A_mistyped_command_is_an_error_with_a_suggestion(string typed, string meant) =>
        Assert.Contains($"\"{meant}\"", ToolRunner.Run(typed).Fails(1, "PV7001").Error, StringComparison.Ordinal);

    [Fact]
    public void A_mistyped_option_is_an_error_with_a_suggestion() =>
        Assert.Contains("\"--backend\"", ToolRunner.Run("plan", _files.Vmlinux, "--bakend", "native").Fails(1, "PV7001").Error,
            StringComparison.Ordinal);

    [Fact]
    public void What_is_required_is_asked_for()
    {
        ToolRunner.Run("info").Fails(1, "PV7001");
        Assert.Contains("--backend", ToolRunner.Run("plan", _files.Vmlinux).Fails(1, "PV7001").Error, StringComparison.Ordinal);
        Assert.Contains(
            "--output", ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native").Fails(1, "PV7001").Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Mistakes_are_json_too_where_json_was_asked_for()
    {
        ToolResult result = ToolRunner.Run("plan", _files.Vmlinux, "--json");
        Assert.Equal(1, result.ErrorJson.GetProperty("exitCode").GetInt32());
        Assert.Equal("PV7001", result.ErrorJson.GetProperty("diagnostics")[0].GetProperty("code").GetString());
        Assert.Equal(
            "PV7001", ToolRunner.Run("nonsense", "--json").ErrorJson.GetProperty("diagnostics")[0].GetProperty("code").GetString());
    }

    [Fact]
    public void A_file_name_may_begin_with_an_at_sign() => ToolRunner.Run("info", "@missing").Fails(2, "PV6002");

    [Fact]
    public void Colours_are_for_terminals_that_want_them()
    {
        var terminal = new ToolRunner.Settings { Terminal = true };
        Assert.Contains("\e[", ToolRunner.Run(terminal, "demo").Out, StringComparison.Ordinal);
        Assert.DoesNotContain("\e[", ToolRunner.Run("demo").Out, StringComparison.Ordinal);
        Assert.DoesNotContain("\e[", ToolRunner.Run(terminal, "demo", "--no-color").Out, StringComparison.Ordinal);
        Assert.DoesNotContain("\e[", ToolRunner.Run(terminal, "demo", "--json").Out, StringComparison.Ordinal);
        Assert.DoesNotContain(
            "\e[", ToolRunner.Run(terminal with { Environment = new() { ["NO_COLOR"] = "1" } }, "demo").Out, StringComparison.Ordinal);
        Assert.DoesNotContain(
            "\e[", ToolRunner.Run(terminal with { Environment = new() { ["TERM"] = "dumb" } }, "demo").Out, StringComparison.Ordinal);
    }

    [Fact]
    public void Colours_change_nothing_but_colours()
    {
        string coloured = ToolRunner.Run(new ToolRunner.Settings { Terminal = true }, "demo").Out;
        Assert.Equal(ToolRunner.Run("demo").Out, System.Text.RegularExpressions.Regex.Replace(coloured, "\e\\[[0-9]+m", ""));
    }

    [Fact]
    public void A_wish_to_stop_is_heard_and_nothing_is_written()
    {
        using var stop = new CancellationTokenSource();
        stop.Cancel();
        var settings = new ToolRunner.Settings { Cancellation = stop.Token };
        foreach (string image in (string[])[_files.Vmlinux, _files.Vmlinuz()])
        {
            ToolRunner.Run(settings, "patch", image, "--backend", "native", "-o", _files.Path("out")).Fails(130, "PV7090");
            Assert.False(File.Exists(_files.Path("out")));
        }
    }

    [Theory]
    [InlineData("demo")]
    [InlineData("demo", "--json")]
    [InlineData("--help")]
    public void Output_that_cannot_be_written_is_an_error(params string[] arguments)
    {
        using var full = new FullStream();
        ToolResult result = ToolRunner.Run(new ToolRunner.Settings { Out = full }, arguments);
        Assert.Equal(4, result.ExitCode);
        Assert.Contains("PV6107", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Control_characters_of_a_file_name_do_not_reach_the_terminal()
    {
        ToolResult result = ToolRunner.Run("info", _files.Path("a\e]0;title\a\u009bb")).Fails(2, "PV6002");
        Assert.DoesNotContain('\e', result.Error);
        Assert.DoesNotContain('\a', result.Error);
        Assert.DoesNotContain('\u009b', result.Error);
    }

    private sealed class FullStream : MemoryStream
    {
        public override void Write(byte[] buffer, int offset, int count) => throw new IOException("No space left on device");

        public override void Write(ReadOnlySpan<byte> buffer) => throw new IOException("No space left on device");

        public override void WriteByte(byte value) => throw new IOException("No space left on device");
    }
}
