using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>The harness itself: what it dumps is the kernel, at the moment it claims.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class BootedKernelTests(BootedKernelFixture fixture)
{
    /// <summary>What Linux writes over freed init memory (x86 int3).</summary>
    private const byte FreedInit = 0xcc;

    public static TheoryData<string> All =>
    [
        "bullseye:linux-image-amd64",
        "bookworm:linux-image-amd64",
        "trixie:linux-image-amd64",
        "sid:linux-image-amd64",
    ];

    [SkippableTheory]
    [MemberData(nameof(All))]
    public void The_banner_of_the_console_stands_at_its_link_address_in_both_dumps(string request)
    {
        BootedKernel kernel = fixture.Boot(PackageRequest.Parse(request));

        // "[    0.000000] Linux version 6.1.0-… (debian-kernel@…) … #1 SMP …"
        int start = kernel.ConsoleText.IndexOf("Linux version ", StringComparison.Ordinal);
        Assert.True(start >= 0, kernel.ConsoleText);
        string banner = kernel.ConsoleText[start..kernel.ConsoleText.IndexOf('\n', start)].TrimEnd();
        byte[] expected = System.Text.Encoding.ASCII.GetBytes(banner);
        ulong address = kernel.Report.Symbol("linux_banner");

        Assert.Equal(expected, kernel.AfterPatching.ReadKernel(address, expected.Length));
        Assert.Equal(expected, kernel.Ready.ReadKernel(address, expected.Length));
    }

    [SkippableTheory]
    [MemberData(nameof(All))]
    public void Init_text_is_whole_after_patching_and_overwritten_at_ready(string request)
    {
        BootedKernel kernel = fixture.Boot(PackageRequest.Parse(request));
        ulong start = kernel.Report.Symbol("_sinittext");
        int length = (int)(kernel.Report.Symbol("_einittext") - start);
        Assert.True(length > 0x10000, $"{length}");

        // Compilers pad functions with int3 too, so "whole" means: no page consists of nothing else.
        Assert.Equal(0, PagesOfFreedInit(kernel.AfterPatching.ReadKernel(start, length)));
        Assert.NotEqual(0, PagesOfFreedInit(kernel.Ready.ReadKernel(start, length)));
    }

    [SkippableTheory]
    [MemberData(nameof(All))]
    public void The_marks_of_the_boot_come_in_order(string request)
    {
        BootedKernel kernel = fixture.Boot(PackageRequest.Parse(request));
        string[] marks =
        [
            "Linux version ",
            "Freeing SMP alternatives memory",
            QemuMachine.PatchingDoneMark,
            QemuMachine.InitFreedMark,
        ];
        int[] places = [.. marks.Select(mark => kernel.Report.Log.IndexOf(mark, StringComparison.Ordinal))];

        Assert.DoesNotContain(-1, places);
        Assert.Equal(places.Order(), places);
    }

    private static int PagesOfFreedInit(byte[] text)
    {
        return text.Chunk(4096).Count(static page => page.AsSpan().IndexOfAnyExcept(FreedInit) < 0);
    }
}
