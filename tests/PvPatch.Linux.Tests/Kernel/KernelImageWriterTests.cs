using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.Kernel;

public sealed class KernelImageWriterTests
{
    [Fact]
    public void What_the_headers_account_for_is_written_and_nothing_behind_it()
    {
        using var folder = new TestFolder();
        byte[] file = SyntheticKernel.Complete().Build();
        ElfImage elf = ElfImage.Read((byte[])[.. file, .. new byte[1000]]);
        Assert.True(KernelImageWriter.TryWrite(elf, folder.File("out"), out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(file, File.ReadAllBytes(folder.File("out")));
        Assert.Equal(["out"], Names(folder));
    }

    [Fact]
    public void What_was_applied_is_written()
    {
        using var folder = new TestFolder();
        KernelImage image = SyntheticKernel.Complete().Open();
        KernelPlanTests.Plan(image).Apply(image.Code);
        Assert.True(KernelImageWriter.TryWrite(image.Elf, folder.File("out"), out _));
        Assert.Equal(image.Elf.File.ToArray(), File.ReadAllBytes(folder.File("out")));
        Assert.False(KernelImage.TryOpen(folder.File("out"), out _, out PatchDiagnostic? error));
        Assert.Equal((KernelDiagnosticCodes.OpsTableNotFound, folder.File("out")), (error.Code, error.Source));
    }

    [Fact]
    public void An_existing_file_is_replaced_whole()
    {
        using var folder = new TestFolder();
        string path = folder.File("out", new byte[5000]);
        Assert.True(KernelImageWriter.TryWrite([1, 2, 3], path, out _));
        Assert.Equal([1, 2, 3], File.ReadAllBytes(path));
        Assert.Equal(["out"], Names(folder));
    }

    [Fact]
    public void The_longest_name_a_file_can_have_can_be_written()
    {
        using var folder = new TestFolder();
        string name = new('k', 255);
        Assert.True(KernelImageWriter.TryWrite([1], folder.File(name), out PatchDiagnostic? error), error?.ToString());
        Assert.Equal([name], Names(folder));
    }

    [Fact]
    public void A_link_is_followed_to_the_file_it_names()
    {
        using var folder = new TestFolder();
        string target = folder.File("target", [9]);
        File.CreateSymbolicLink(folder.File("link"), "target");
        Assert.True(KernelImageWriter.TryWrite([1, 2], folder.File("link"), out PatchDiagnostic? error), error?.ToString());
        Assert.Equal([1, 2], File.ReadAllBytes(target));
        Assert.Equal("target", new FileInfo(folder.File("link")).LinkTarget);
        Assert.Equal(["link", "target"], Names(folder));
    }

    [Fact]
    public void A_link_to_nothing_makes_the_file_it_names()
    {
        using var folder = new TestFolder();
        File.CreateSymbolicLink(folder.File("link"), "target");
        Assert.True(KernelImageWriter.TryWrite([1, 2], folder.File("link"), out PatchDiagnostic? error), error?.ToString());
        Assert.Equal([1, 2], File.ReadAllBytes(folder.File("target")));
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

    // Only named, never written to: what went wrong here would take the machine's own device away.
    [Theory]
    [InlineData("/dev/null", true)]
    [InlineData("/dev/stdout", true)]
    [InlineData("/dev/pts/3", true)]
    [InlineData("/dev/shm/vmlinux", false)]
    [InlineData("/device", false)]
    [InlineData("/home/dev/vmlinux", false)]
    public void A_device_is_known_by_its_name(string path, bool expected)
    {
        Requirement.That(!OperatingSystem.IsWindows(), "there is no /dev");
        Assert.Equal(expected, KernelImageWriter.IsDevice(path));
    }

    private static void AssertUnwritable(string path)
    {
        Assert.False(KernelImageWriter.TryWrite([1, 2, 3], path, out PatchDiagnostic? error));
        Assert.Equal((KernelDiagnosticCodes.OutputUnwritable, path), (error.Code, error.Source));
        Assert.NotNull(error.Found);
    }

    private static Restore ReadOnly(string folder)
    {
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute);
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
