using PvPatch.Linux.Tests.Support;
using PvPatch.Tests.Shared;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>Where an output goes, and which paths are refused.</summary>
public sealed class OutputPathTests
{
    [Fact]
    public void An_existing_file_is_replaced_whole()
    {
        using var folder = new TestFolder();
        string path = folder.File("out", new byte[5000]);
        Write(path);
        AssertWritten(path);
        Assert.Equal(["out"], Names(folder));
    }

    [Fact]
    public void The_longest_name_a_file_can_have_can_be_written()
    {
        using var folder = new TestFolder();
        string name = new('k', 255);
        Write(folder.File(name));
        Assert.Equal([name], Names(folder));
    }

    [Fact]
    public void A_link_is_followed_to_the_file_it_names()
    {
        using var folder = new TestFolder();
        string target = folder.File("target", [9]);
        File.CreateSymbolicLink(folder.File("link"), "target");
        Write(folder.File("link"));
        AssertWritten(target);
        Assert.Equal("target", new FileInfo(folder.File("link")).LinkTarget);
        Assert.Equal(["link", "target"], Names(folder));
    }

    [Fact]
    public void A_link_to_nothing_makes_the_file_it_names()
    {
        using var folder = new TestFolder();
        File.CreateSymbolicLink(folder.File("link"), "target");
        Write(folder.File("link"));
        AssertWritten(folder.File("target"));
        Assert.Equal(["link", "target"], Names(folder));
    }

    [Fact]
    public void A_link_to_itself_is_an_error()
    {
        using var folder = new TestFolder();
        File.CreateSymbolicLink(folder.File("link"), "link");
        AssertUnwritable(folder.File("link"));
        Assert.Equal(["link"], Names(folder));
    }

    [Fact]
    public void A_directory_is_not_overwritten()
    {
        using var folder = new TestFolder();
        Directory.CreateDirectory(folder.File("out"));
        AssertUnwritable(folder.File("out"));
        AssertUnwritable(folder.File("out") + "/");
        Assert.Equal(["out"], Names(folder));
        Assert.Empty(Directory.GetFileSystemEntries(folder.File("out")));
    }

    [Fact]
    public void A_directory_that_is_not_there_is_not_made()
    {
        using var folder = new TestFolder();
        AssertUnwritable(folder.File("missing/out"));
        Assert.Empty(Names(folder));
    }

    [Theory]
    [InlineData("file/out")]
    [InlineData("file/")]
    public void A_file_is_no_directory(string path)
    {
        using var folder = new TestFolder();
        folder.File("file", [7]);
        AssertUnwritable(folder.File(path));
        Assert.Equal([7], File.ReadAllBytes(folder.File("file")));
        Assert.Equal(["file"], Names(folder));
    }

    [Fact]
    public void A_name_with_nul_is_no_name() => AssertUnwritable("out\0put");

    [Fact]
    public void A_name_too_long_for_the_file_system_leaves_nothing_behind()
    {
        using var folder = new TestFolder();
        AssertUnwritable(folder.File(new string('k', 256)));
        Assert.Empty(Names(folder));
    }

    [Fact]
    public void A_directory_that_may_not_be_written_to_is_an_error()
    {
        using var folder = new TestFolder();
        using (ReadOnly(folder.Path))
        {
            OrdinaryUser.Run(() => AssertUnwritable(folder.File("out")));
        }

        Assert.Empty(Names(folder));
    }

    [Fact]
    public void A_file_system_that_cannot_be_written_to_is_an_error()
    {
        // Where kernels show their own state, no file can be made, whoever asks.
        Requirement.That(Directory.Exists("/proc/self"), "there is no /proc");
        AssertUnwritable("/proc/pvpatch-test");
    }

    // Never written to as a file is: what went wrong here would take the machine's own device away.
    [Fact]
    public void A_device_is_refused()
    {
        Requirement.That(OperatingSystem.IsLinux(), "only Linux is asked what a name leads to");
        AssertUnwritable("/dev/null");
        using var folder = new TestFolder();
        File.CreateSymbolicLink(folder.File("link"), "/dev/null");
        AssertUnwritable(folder.File("link"));
    }

    private static void Write(string path)
    {
        using var kernel = new KernelFiles();
        ToolRunner.Run("allowed", kernel.Vmlinux, "-o", path).Succeeds();
    }

    private static void AssertWritten(string path) => Assert.Contains("pvpatch-allowed", File.ReadAllText(path), StringComparison.Ordinal);

    private static void AssertUnwritable(string path)
    {
        using var kernel = new KernelFiles();
        ToolRunner.Run("allowed", kernel.Vmlinux, "-o", path).Fails(4, "PV6107");
    }

    private static Restore ReadOnly(string folder)
    {
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(
                folder, UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute);
        }

        return new Restore(folder);
    }

    private sealed class Restore(string folder) : IDisposable
    {
        public void Dispose()
        {
            if (!OperatingSystem.IsWindows())
            {
                File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            }
        }
    }

    private static string[] Names(TestFolder folder) =>
        [.. Directory.GetFileSystemEntries(folder.Path).Select(p => Path.GetFileName(p)).Order(StringComparer.Ordinal)];
}
