using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>Parts of the harness that need no kernel.</summary>
public sealed class HarnessPartsTests
{
    [Fact]
    public void Stanza_sources_give_the_addresses_of_enabled_binary_archives()
    {
        const string Text = """
            # A comment before
            Types: deb deb-src
            # and one within
            URIs: http://one.example/debian
             http://two.example/debian/
            Suites: bookworm
            Components: main contrib

            Types: deb
            URIs: http://off.example/debian
            Suites: bookworm
            Components: main
            Enabled: no

            Types: deb-src
            URIs: http://source.example/debian
            Suites: bookworm
            Components: main
            """;

        Assert.Equal(["http://one.example/debian", "http://two.example/debian"], DebianMirrors.StanzaAddresses(Text));
    }

    [Fact]
    public void One_line_sources_give_the_addresses_with_and_without_options()
    {
        const string Text = """
            deb http://one.example/debian/ bookworm main contrib # note
            deb [arch=amd64 signed-by=/k.gpg] http://two.example/debian-security bookworm-security main
            # deb http://off.example/debian bookworm main
            deb-src http://source.example/debian bookworm main
            deb http://vendor.example/debian bookworm stable
            """;

        Assert.Equal(
            ["http://one.example/debian", "http://two.example/debian-security"], DebianMirrors.OneLineAddresses(Text));
    }

    [Theory]
    [InlineData("http://deb.example/debian", "http://deb.example/debian-security")]
    [InlineData("http://s.example/archive/debian/20250520T000000Z", "http://s.example/archive/debian-security/20250520T000000Z")]
    [InlineData("mirror+file:/etc/apt/mirrors/debian.list", "mirror+file:/etc/apt/mirrors/debian-security.list")]
    public void The_archives_are_told_apart_by_the_end_of_their_paths(string main, string security)
    {
        string[] addresses = ["https://vendor.example/debian/12/prod", security, main];

        Assert.Equal(new DebianMirrors(main, security), DebianMirrors.TryChoose(addresses));
        Assert.Null(DebianMirrors.TryChoose([security]));
    }

    [Theory]
    [InlineData("bookworm")]
    [InlineData("bookworm:")]
    [InlineData("bookworm:../etc")]
    [InlineData("bookworm:a:amd64:b")]
    [InlineData("bookworm:-o")]
    public void A_malformed_package_request_is_refused(string text)
    {
        Assert.Throws<FormatException>(() => PackageRequest.Parse(text));
    }

    [Fact]
    public void A_package_request_reads_what_it_writes()
    {
        Assert.Equal(Kernels.BookwormI386, PackageRequest.Parse(Kernels.BookwormI386.ToString()));
        Assert.Equal("amd64", PackageRequest.Parse("sid:linux-image-amd64").Architecture);
    }

    [Fact]
    public void Options_that_contradict_each_other_are_refused()
    {
        XenOptions xen = new();
        MachineOptions[] contradictions =
        [
            new() { Xen = xen, Kaslr = true },
            new() { Xen = xen, KvmFeatures = 0 },
            new() { Xen = xen, Processors = "2" },
            new() { Xen = new XenOptions { Dom0Processors = 0 } },
            new() { Xen = xen, Architecture = "i386" },
            new() { KvmFeatures = 0, Kaslr = true },
            new() { KvmFeatures = 0, Architecture = "i386" },
        ];

        Assert.All(contradictions, static options => Assert.Throws<ArgumentException>(options.Check));
        Assert.Equal(new MachineOptions { Xen = xen }, new MachineOptions { Xen = new XenOptions() });
    }

    [Fact]
    public void A_file_lock_is_exclusive_until_it_is_disposed()
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pvpatch-lock-");
        string path = Path.Combine(directory.FullName, "lock");
        try
        {
            using (FileLock.Acquire(path, TimeSpan.Zero))
            {
                Assert.Throws<TimeoutException>(() => FileLock.Acquire(path, TimeSpan.Zero));
            }

            FileLock.Acquire(path, TimeSpan.Zero).Dispose();
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [Fact]
    public void Busybox_lists_and_unpacks_the_archive_as_it_was_meant()
    {
        Require.Busybox();
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pvpatch-cpio-");
        try
        {
            string path = Path.Combine(directory.FullName, "archive");
            byte[] data = [1, 2, 3, 4, 5];
            using (FileStream file = File.Create(path))
            {
                CpioArchive archive = new(file);
                archive.AddDirectory("bin");
                archive.AddExecutable("bin/five", data);
                archive.AddExecutable("four", data.AsSpan(0, 4));
                archive.Finish();
            }

            ToolResult result = ExternalTool.Run(
                GuestInitramfs.HostBusybox, ["cpio", "-idv", "-F", path], TimeSpan.FromSeconds(30), directory.FullName);

            Assert.True(result.Succeeded, result.Error);
            Assert.Equal(["bin", "bin/five", "four"], $"{result.Output}{result.Error}".Split('\n').Take(3));
            Assert.Equal(data, File.ReadAllBytes(Path.Combine(directory.FullName, "bin/five")));
            Assert.Equal(data[..4], File.ReadAllBytes(Path.Combine(directory.FullName, "four")));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }
}
