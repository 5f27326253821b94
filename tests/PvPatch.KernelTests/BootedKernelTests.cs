using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>The harness itself: what it dumps is the kernel, at the moment it claims.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class BootedKernelTests(BootedKernelFixture fixture)
{
    /// <summary>What Linux writes over freed init memory (x86 int3).</summary>
    private const byte FreedInit = 0xcc;

    private const int PageSize = 4096;

    public static TheoryData<string> All =>
    [
        Kernels.Bullseye.ToString(),
        Kernels.Bookworm.ToString(),
        Kernels.BookwormI386.ToString(),
        Kernels.Trixie.ToString(),
        Kernels.Sid.ToString(),
    ];

    [Theory]
    [MemberData(nameof(All))]
    public void The_banner_on_the_console_stands_in_both_dumps_where_its_symbol_says(string request)
    {
        BootedKernel kernel = fixture.Boot(PackageRequest.Parse(request));
        byte[] banner = System.Text.Encoding.ASCII.GetBytes(Banner(kernel));
        ulong? address = kernel.AfterPatching.Find(banner);

        Assert.NotNull(address);
        Assert.Equal(banner, kernel.Ready.ReadKernel(address.Value, banner.Length));

        // i386 has no symbols of data; there the code addresses are checked when the kernel is booted.
        bool named = kernel.Report.Symbols.TryGetValue("linux_banner", out ulong symbol);
        Assert.Equal(kernel.Options.Architecture == "amd64", named);
        Assert.Equal(address.Value, named ? symbol : address.Value);
    }

    [Theory]
    [MemberData(nameof(All))]
    public void Init_text_is_whole_after_patching_and_overwritten_at_ready(string request)
    {
        BootedKernel kernel = fixture.Boot(PackageRequest.Parse(request));
        ulong start = kernel.Report.Symbol("_sinittext");
        int length = (int)(kernel.Report.Symbol("_einittext") - start);
        Assert.True(length > 16 * PageSize, $"{length}");

        // Functions are padded with int3 too, so the measure is a page of nothing else.
        Assert.Equal(0, PagesOfFreedInit(kernel.AfterPatching.ReadKernel(start, length)));
        Assert.True(PagesOfFreedInit(kernel.Ready.ReadKernel(start, length)) > 0);
    }

    [Theory]
    [MemberData(nameof(All))]
    public void The_stop_after_patching_lies_between_the_last_patching_and_the_end_of_init(string request)
    {
        BootedKernel kernel = fixture.Boot(PackageRequest.Parse(request));

        // From 7.x on the line about the SMP alternatives comes later, from an initcall; it proves nothing there.
        // The first processor is reported only when alternative_instructions() has returned, in every version.
        string[] marks =
        [
            "Linux version ", "smpboot: CPU0: ", QemuMachine.PatchingDoneMark, QemuMachine.InitFreedMark,
        ];
        int[] places = [.. marks.Select(mark => kernel.Report.Log.IndexOf(mark, StringComparison.Ordinal))];

        Assert.DoesNotContain(-1, places);
        Assert.Equal(places.Order(), places);
    }

    [Theory]
    [MemberData(nameof(All))]
    public void Later_boot_changes_next_to_nothing_in_the_text(string request)
    {
        BootedKernel kernel = fixture.Boot(PackageRequest.Parse(request));
        ulong start = kernel.Report.Symbol("_stext");
        int length = (int)(kernel.Report.Symbol("_etext") - start);
        byte[] patched = kernel.AfterPatching.ReadKernel(start, length);
        byte[] final = kernel.Ready.ReadKernel(start, length);

        // Jump labels and static calls switched by initcalls change up to some hundred bytes; boot-time
        // patching changes half a million, so a stop before or amidst it would exceed this by far.
        int different = patched.Zip(final).Count(static pair => pair.First != pair.Second);
        Assert.InRange(different, 0, 1000);
    }

    [Fact]
    public void A_kernel_given_as_an_edited_elf_reaches_user_space_with_the_edit()
    {
        DebianKernel package = fixture.Fetch(Kernels.Bookworm);
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pvpatch-elf-");
        try
        {
            string path = Path.Combine(directory.FullName, "vmlinux");
            BzImage.ExtractElf(package.ImagePath, path);
            byte[] image = File.ReadAllBytes(path);
            Assert.True(ReplaceAll(image, "(debian-kernel@"u8, "(edited-kernel@"u8) > 0);
            File.WriteAllBytes(path, image);

            BootedKernel kernel = fixture.Boot(path);

            Assert.Contains("(edited-kernel@", Banner(kernel), StringComparison.Ordinal);
            byte[] expected = System.Text.Encoding.ASCII.GetBytes(Banner(kernel));
            Assert.Equal(kernel.Report.Symbol("linux_banner"), kernel.AfterPatching.Find(expected));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [Fact]
    public void Options_reach_the_guest_and_make_a_boot_of_their_own()
    {
        MachineOptions options = new() { Cpu = "Skylake-Client-v4", Processors = "1,maxcpus=2", Append = "noreplace-smp" };
        BootedKernel kernel = fixture.Boot(Kernels.Bookworm, options);

        Assert.EndsWith(" noreplace-smp", kernel.Report.CommandLine, StringComparison.Ordinal);
        Assert.Contains("GenuineIntel", kernel.Report.CpuInfo, StringComparison.Ordinal);
        Assert.Contains("Allowing 2 CPUs, 1 hotplug CPUs", kernel.Report.Log, StringComparison.Ordinal);
        Assert.NotSame(kernel, fixture.Boot(Kernels.Bookworm));
        Assert.Same(kernel, fixture.Boot(Kernels.Bookworm, options with { }));
    }

    private static int ReplaceAll(Span<byte> image, ReadOnlySpan<byte> old, ReadOnlySpan<byte> replacement)
    {
        int count = 0;
        for (int index = image.IndexOf(old); index >= 0; index = image.IndexOf(old))
        {
            replacement.CopyTo(image[index..]);
            count++;
        }

        return count;
    }

    private static string Banner(BootedKernel kernel)
    {
        // "[    0.000000] Linux version 6.1.0-… (debian-kernel@…) … #1 SMP …"
        int start = kernel.ConsoleText.IndexOf("Linux version ", StringComparison.Ordinal);
        Assert.True(start >= 0, kernel.ConsoleText);
        return kernel.ConsoleText[start..kernel.ConsoleText.IndexOf('\n', start)].TrimEnd();
    }

    private static int PagesOfFreedInit(byte[] text)
    {
        return text.Chunk(PageSize).Count(static page => page.AsSpan().IndexOfAnyExcept(FreedInit) < 0);
    }
}
