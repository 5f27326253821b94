using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>The harness under Xen: a real hypervisor, and the memory of the kernel that is its dom0.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class XenBootTests(BootedKernelFixture fixture)
{
    private static readonly MachineOptions s_one = new() { Xen = new XenOptions() };
    private static readonly MachineOptions s_two = new() { Xen = new XenOptions { Dom0Processors = 2 } };

    public static TheoryData<string> Others =>
    [
        Kernels.Bullseye.ToString(),
        Kernels.Trixie.ToString(),
        Kernels.Sid.ToString(),
    ];

    [Fact]
    public void The_6_1_kernel_is_dom0_of_a_real_xen_and_its_image_is_read()
    {
        CheckDom0(fixture.Boot(Kernels.Bookworm, s_one));
    }

    [Theory]
    [MemberData(nameof(Others))]
    [Trait("Category", "Matrix")]
    public void Every_other_kernel_is_dom0_of_a_real_xen_and_its_image_is_read(string request)
    {
        CheckDom0(fixture.Boot(PackageRequest.Parse(request), s_one));
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void Two_processors_bring_the_spinlocks_of_xen_and_nopvspin_takes_them_away()
    {
        BootedKernel with = fixture.Boot(Kernels.Bookworm, s_two);
        BootedKernel without = fixture.Boot(Kernels.Bookworm, s_two with { Append = "nopvspin" });
        BootedKernel one = fixture.Boot(Kernels.Bookworm, s_one);

        Assert.Contains("Brought up 1 node, 2 CPUs", with.Report.Log, StringComparison.Ordinal);
        Assert.Contains("Brought up 1 node, 2 CPUs", without.Report.Log, StringComparison.Ordinal);
        ulong unlock = with.Report.Symbol("__raw_callee_save___pv_queued_spin_unlock");
        Assert.Contains(unlock, with.Words("pv_ops"));
        Assert.DoesNotContain(unlock, without.Words("pv_ops"));
        Assert.Equal(one.Words("pv_ops"), without.Words("pv_ops"));
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void An_edited_elf_is_dom0_with_the_edit()
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pvpatch-elf-");
        try
        {
            // A blank and a comma in the path, which mean something in QEMU's list of modules.
            string path = Path.Combine(directory.CreateSubdirectory("a b,c").FullName, "vmlinux");
            BzImage.ExtractElf(fixture.Fetch(Kernels.Bookworm).ImagePath, path);
            byte[] image = File.ReadAllBytes(path);
            int place = image.AsSpan().IndexOf("(debian-kernel@"u8);
            while (place >= 0)
            {
                "(edited-kernel@"u8.CopyTo(image.AsSpan(place));
                place = image.AsSpan().IndexOf("(debian-kernel@"u8);
            }

            File.WriteAllBytes(path, image);

            BootedKernel kernel = fixture.Boot(path, s_one, fixture.Boot(Kernels.Bookworm));

            Assert.Contains("(edited-kernel@", kernel.Report.Log, StringComparison.Ordinal);
            CheckDom0(kernel);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void A_dom0_that_panics_is_reported_with_the_end_of_its_console()
    {
        MachineOptions options = s_one with { Append = "rdinit=/absent" };

        InvalidOperationException exception =
            Assert.Throws<InvalidOperationException>(() => fixture.Boot(Kernels.Bookworm, options));

        Assert.Contains("QEMU ended", exception.Message, StringComparison.Ordinal);
        Assert.Contains("Kernel panic", exception.Message, StringComparison.Ordinal);
    }

    private void CheckDom0(BootedKernel kernel)
    {
        Assert.Contains("Hypervisor detected: Xen PV", kernel.Report.Log, StringComparison.Ordinal);
        Assert.Contains("Xen version: 4.", kernel.Report.Log, StringComparison.Ordinal);
        Assert.Contains("(XEN) Xen version 4.", kernel.ConsoleText, StringComparison.Ordinal);

        // The banner, at the place its symbol says and in the words of the log, tells that this is the dom0's image.
        ulong banner = kernel.Report.Symbol("linux_banner");
        string text = System.Text.Encoding.ASCII.GetString(kernel.AfterPatching.ReadKernel(banner, 64));
        Assert.StartsWith("Linux version ", text, StringComparison.Ordinal);
        Assert.Contains(text, kernel.Report.Log, StringComparison.Ordinal);
        Assert.Equal(text, System.Text.Encoding.ASCII.GetString(kernel.Ready.ReadKernel(banner, 64)));

        // Natively the table is as on disk.
        BootedKernel native = fixture.Boot(kernel.Package is { } package ? Request(package) : Kernels.Bookworm);
        ulong[] before = native.Words("pv_ops");
        ulong[] after = kernel.Words("pv_ops");
        Assert.InRange(before.Zip(after).Count(static pair => pair.First != pair.Second), 50, before.Length);
        Assert.Equal(after, kernel.Words("pv_ops", BootPoint.Ready));

        // Init code is nearly that of a native boot in the one dump and gone in the other. The text before is equal in
        // both but for some jumps, and differs from that of a native boot at the sites.
        ulong init = kernel.Report.Symbol("_sinittext");
        int length = (int)(kernel.Report.Symbol("_einittext") - init);
        byte[] whole = kernel.AfterPatching.ReadKernel(init, length);
        Assert.InRange(Different(whole, native.AfterPatching.ReadKernel(init, length)), 1, length / 10);
        Assert.InRange(Different(whole, kernel.Ready.ReadKernel(init, length)), length / 2, length);
        ulong code = kernel.Report.Symbol("_stext");
        int codeLength = (int)(kernel.Report.Symbol("_etext") - code);
        byte[] early = kernel.AfterPatching.ReadKernel(code, codeLength);
        byte[] late = kernel.Ready.ReadKernel(code, codeLength);
        Assert.InRange(Different(early, late), 0, 1000);
        Assert.InRange(Different(early, native.AfterPatching.ReadKernel(code, codeLength)), 10_000, codeLength / 10);
    }

    private static int Different(byte[] left, byte[] right)
    {
        return left.Zip(right).Count(static pair => pair.First != pair.Second);
    }

    private static PackageRequest Request(DebianKernel package)
    {
        return new PackageRequest(package.Suite, "linux-image-amd64", package.Architecture);
    }
}
