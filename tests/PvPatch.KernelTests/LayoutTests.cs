using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Linux.Files;
using PvPatch.Linux.Layouts;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.KernelTests;

/// <summary>The known orders of slots against what real kernels say of themselves.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class LayoutTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    // Debian's options: five levels but in 5.10's and the cloud kernels', of 686-pae no PARAVIRT_XXL.
    [Theory]
    [InlineData("bullseye", "5.10.262-x86-64-4level")]
    [InlineData("bookworm", "5.17-6.3-x86-64-5level")]
    [InlineData("bookworm-i386", "5.17-6.8-i386")]
    [InlineData("trixie", "6.4-6.13-x86-64-5level")]
    [InlineData("sid", "7.2-x86-64")]
    public void Without_its_type_information_a_kernel_proves_the_order_that_it_says(string kernel, string name)
    {
        string path = fixture.Fetch(TestedKernels.Named(kernel)).ImagePath;
        KernelImage said = TestedKernels.Load(path);
        ElfImage silent = WithoutTypes(path);

        Assert.True(KernelImage.TryOpen(silent, null, out KernelImage? image, out PatchDiagnostic? error), error?.ToString());
        output.WriteLine($"{kernel}: {image.Layout.Name}; alike: {string.Join(", ", image.LayoutsAlike)}");
        Assert.Equal(name, image.Layout.Name);
        AssertSame(said, image);

        // And with the order as the caller's choice, the lock table of 7.0 and later included.
        Assert.True(KernelLayouts.TryGet(name, out OpsLayout? layout));
        Assert.True(KernelImage.TryOpen(silent, new KernelOptions { Layout = layout }, out image, out error), error?.ToString());
        AssertSame(said, image);
    }

    private static void AssertSame(KernelImage said, KernelImage image)
    {
        Assert.Equal(said.Layout.Slots.Select(Describe), image.Layout.Slots.Select(Describe));
        Assert.Equal(said.SlotWords, image.SlotWords);
        PatchPlan expected = TestedKernels.Plan(said, new BootMachine());
        PatchPlan plan = TestedKernels.Plan(image, new BootMachine());
        Assert.Equal(expected.Count, plan.Count);
        for (int i = 0; i < plan.Count; i++)
        {
            Assert.True(expected[i].NewBytes.SequenceEqual(plan[i].NewBytes), plan[i].ToString());
        }
    }

    private static string Describe(OpSlot slot) => $"{slot.Name} {slot.Kind} {slot.Convention}";

    /// <summary>The kernel with its section of type information under another name.</summary>
    private static ElfImage WithoutTypes(string path)
    {
        Assert.True(KernelFile.TryLoad(path, null, out LoadedKernelFile? file, out _));
        byte[] bytes = file.Image.ToArray();
        int at = bytes.AsSpan().LastIndexOf("\0.BTF\0"u8);
        if (at >= 0)
        {
            bytes[at + 2] = (byte)'X';
        }

        return ElfImage.Read(bytes);
    }
}
