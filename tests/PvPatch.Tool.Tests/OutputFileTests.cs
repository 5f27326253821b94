using System.Runtime.InteropServices;
using PvPatch.Tool.Files;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>What is written, when something goes wrong in the middle, and to whom it belongs.</summary>
public sealed class OutputFileTests : IDisposable
{
    private const string OldImage = "the image of yesterday";
    private const string OldPlan = "the plan of yesterday";

    private readonly KernelFiles _files = new();

    private string Output => _files.Path("out");

    private string Plan => _files.Path("plan.json");

    public void Dispose() => _files.Dispose();

    [Theory]
    [InlineData("write 1")]
    [InlineData("write 2")]
    [InlineData("flush 1")]
    [InlineData("flush 2")]
    [InlineData("rename 1")]
    [InlineData("rename 2")]
    public void A_disk_that_is_full_leaves_the_old_image_and_the_old_plan(string step)
    {
        WriteOld();
        IReadOnlyList<string> before = _files.Names();
        ToolResult result = Patch(new TestDisk { Fails = step }).Fails(4, "PV6107");
        Assert.Equal(OldImage, File.ReadAllText(Output));
        Assert.Equal(OldPlan, File.ReadAllText(Plan));
        Assert.Equal(before, _files.Names());
        Assert.Contains("No file was changed", result.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("write 2")]
    [InlineData("rename 1")]
    [InlineData("rename 2")]
    public void A_disk_that_is_full_gets_no_new_file(string step)
    {
        IReadOnlyList<string> before = _files.Names();
        Patch(new TestDisk { Fails = step }).Fails(4, "PV6107");
        Assert.Equal(before, _files.Names());
    }

    [Fact]
    public void What_cannot_be_taken_back_is_named()
    {
        WriteOld();
        ToolResult result = Patch(new TestDisk { Fails = "rename 2", HasLinks = false }).Fails(4, "PV6107");
        Assert.Equal(OldImage, File.ReadAllText(Output));
        Assert.NotEqual(OldPlan, File.ReadAllText(Plan));
        Assert.Contains($"The new content of {Plan} stands there", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_that_does_not_reach_the_disk_is_an_error_that_names_what_was_written()
    {
        ToolResult result = Patch(new TestDisk { Fails = "folder 1" }).Fails(4, "PV6107");
        Assert.Contains($"{Plan} and {Output} stands there", result.Error, StringComparison.Ordinal);
        Assert.True(File.Exists(Output));
    }

    [Fact]
    public void Bytes_are_on_the_disk_before_they_have_a_name_and_names_before_it_is_said()
    {
        var disk = new TestDisk();
        Patch(disk).Succeeds();
        Assert.Equal(["write", "flush", "write", "flush", "rename", "rename", "folder"], disk.Steps);
        Assert.DoesNotContain(_files.Names(), static n => n.StartsWith('.'));
    }

    [Theory]
    [InlineData("patch", 2)]
    [InlineData("revert", 1)]
    [InlineData("allowed", 1)]
    [InlineData("plan", 1)]
    public void Every_command_that_writes_waits_for_the_disk(string command, int files)
    {
        var disk = new TestDisk();
        string[] arguments = command switch
        {
            "patch" => ["patch", _files.Vmlinux, "--backend", "native", "-o", Output, "--save-plan", Plan],
            "revert" => ["revert", _files.Vmlinux, "--original", _files.Vmlinux, "-o", Output],
            "allowed" => ["allowed", _files.Vmlinux, "-o", Output],
            _ => ["plan", _files.Vmlinux, "--backend", "native", "--allowed", Output],
        };
        ToolRunner.Run(new ToolRunner.Settings { Disk = disk }, arguments).Succeeds();
        Assert.Equal(files, disk.Steps.Count(static s => s == "flush"));
        Assert.Equal("folder", disk.Steps[^1]);
    }

    [Theory]
    [InlineData(0b110_000_000)]
    [InlineData(0b110_100_000)]
    [InlineData(0b111_101_101)]
    public void What_is_replaced_keeps_its_permissions(int mode)
    {
        if (OperatingSystem.IsWindows())
        {
            Assert.Skip("Windows has no such permissions");
            return;
        }

        WriteOld();
        File.SetUnixFileMode(Output, (UnixFileMode)mode);
        File.SetUnixFileMode(Plan, (UnixFileMode)mode);
        Patch(new OutputDisk()).Succeeds();
        Assert.Equal((UnixFileMode)mode, File.GetUnixFileMode(Output));
        Assert.Equal((UnixFileMode)mode, File.GetUnixFileMode(Plan));
    }

    [Fact]
    public void A_new_file_is_open_to_nobody_its_image_is_closed_to()
    {
        if (OperatingSystem.IsWindows())
        {
            Assert.Skip("Windows has no such permissions");
            return;
        }

        const UnixFileMode Mine = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        File.SetUnixFileMode(_files.Vmlinux, Mine);
        Patch(new OutputDisk()).Succeeds();
        Assert.Equal(Mine, File.GetUnixFileMode(Output));
        Assert.Equal(Mine, File.GetUnixFileMode(Plan));
    }

    [Fact]
    public void A_hard_link_to_an_input_is_not_replaced()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "only Linux is asked which file a name leads to");
        Assert.SkipUnless(new OutputDisk().TryLink(_files.Vmlinux, Output), "the file system of the temporary folder has no hard links");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", Output).Fails(3, "PV7004");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _files.Path("other"), "--save-plan", Output)
            .Fails(3, "PV7004");
        ToolRunner.Run("revert", _files.Vmlinux, "--original", _files.Vmlinux, "-o", Output).Fails(3, "PV7004");
        ToolRunner.Run("allowed", _files.Vmlinux, "-o", Output).Fails(3, "PV7004");
        Assert.Equal(_files.Bytes, File.ReadAllBytes(Output));
        Assert.False(File.Exists(_files.Path("other")));
    }

    [Fact]
    public void Where_it_is_asked_for_a_hard_link_is_replaced_and_its_other_name_keeps_the_original()
    {
        Assert.SkipUnless(new OutputDisk().TryLink(_files.Vmlinux, Output), "the file system of the temporary folder has no hard links");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", Output, "--force").Succeeds();
        Assert.Equal(_files.Bytes, File.ReadAllBytes(_files.Vmlinux));
        Assert.NotEqual(_files.Bytes, File.ReadAllBytes(Output));
    }

    [Theory]
    [InlineData("--system-map")]
    [InlineData("--kallsyms")]
    [InlineData("--layout")]
    [InlineData("--slots")]
    public void A_file_that_an_option_names_is_not_replaced(string option)
    {
        string file = _files.Write("named", "what somebody wrote by hand");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", option, file, "-o", file).Fails(3, "PV7004");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", option, file, "-o", Output, "--save-plan", file).Fails(3, "PV7004");
        ToolRunner.Run("revert", _files.Vmlinux, "--original", _files.Vmlinux, option, file, "-o", file).Fails(3, "PV7004");
        ToolRunner.Run("allowed", _files.Vmlinux, option, file, "-o", file).Fails(3, "PV7004");
        ToolRunner.Run("plan", _files.Vmlinux, option, file, "--allowed", file).Fails(3, "PV7004");
        Assert.Equal("what somebody wrote by hand", File.ReadAllText(file));
        Assert.False(File.Exists(Output));
    }

    [Fact]
    public void Stopped_while_it_writes_it_leaves_everything_as_it_was()
    {
        WriteOld();
        IReadOnlyList<string> before = _files.Names();
        using var stop = new CancellationTokenSource();
        int writes = 0;
        var disk = new TestDisk { BeforeWrite = () => { if (++writes == 2) { stop.Cancel(); } } };
        var settings = new ToolRunner.Settings { Disk = disk, Cancellation = stop.Token };
        ToolResult result = ToolRunner.Run(settings, "patch", _files.Vmlinux, "--backend", "native", "-o", Output, "--save-plan", Plan)
            .Fails(130, "PV7090");
        Assert.Contains("nothing was written", result.Error, StringComparison.Ordinal);
        Assert.Equal(OldImage, File.ReadAllText(Output));
        Assert.Equal(OldPlan, File.ReadAllText(Plan));
        Assert.Equal(before, _files.Names());
    }

    [Fact]
    public void Output_that_cannot_be_said_does_not_hide_that_files_were_written()
    {
        var settings = new ToolRunner.Settings { Out = new FullStream() };
        ToolResult result = ToolRunner.Run(settings, "patch", _files.Vmlinux, "--backend", "native", "-o", Output, "--save-plan", Plan)
            .Fails(4, "PV6107");
        Assert.True(File.Exists(Output));
        Assert.Contains("standard output", result.Error, StringComparison.Ordinal);
        Assert.Contains($"Written was {Plan} and {Output}", result.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(PosixSignal.SIGHUP, 1)]
    [InlineData(PosixSignal.SIGTERM, 15)]
    public void A_signal_that_asks_to_end_is_a_wish_to_stop(PosixSignal signal, int number)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), $"{signal} is sent as Linux does");
        using var interruption = new Interruption();
        using var stopped = new ManualResetEventSlim();
        using CancellationTokenRegistration registration = interruption.Token.Register(stopped.Set);

        // Where nobody waits for the signal, it ends this process.
        Assert.Equal(0, Kill(Environment.ProcessId, number));
        Assert.True(stopped.Wait(TimeSpan.FromMinutes(1), TestContext.Current.CancellationToken));
    }

    private void WriteOld()
    {
        File.WriteAllText(Output, OldImage);
        File.WriteAllText(Plan, OldPlan);
    }

    private ToolResult Patch(OutputDisk disk) =>
        ToolRunner.Run(
            new ToolRunner.Settings { Disk = disk }, "patch", _files.Vmlinux, "--backend", "native", "-o", Output, "--save-plan", Plan);

    [DllImport("libc", EntryPoint = "kill")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Kill(int process, int signal);

    private sealed class FullStream : MemoryStream
    {
        public override void Write(byte[] buffer, int offset, int count) => throw new IOException("No space left on device");

        public override void Write(ReadOnlySpan<byte> buffer) => throw new IOException("No space left on device");
    }
}
