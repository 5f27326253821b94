using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Linux.Text;
using PvPatch.Plans;

namespace PvPatch.KernelTests;

/// <summary>
/// Images that PvPatch wrote are booted to user space. The kernel's own patcher runs over sites that are patched already, and must leave in
/// memory what the file holds.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class PatchedImageTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    public static TheoryData<string, string> Others
    {
        get
        {
            var cells = new TheoryData<string, string>();
            foreach (string kernel in (string[])["bullseye", "bookworm", "trixie", "sid"])
            {
                foreach (string boot in (string[])["native", "kvm-0x22a2-2cpu", "xen-1cpu"])
                {
                    if ((kernel, boot) != ("bookworm", "native"))
                    {
                        cells.Add(kernel, boot);
                    }
                }
            }

            return cells;
        }
    }

    [Fact]
    public void The_patched_6_1_boots_and_keeps_its_sites() => Check("bookworm", "native");

    [Theory]
    [MemberData(nameof(Others))]
    [Trait("Category", "Matrix")]
    public void Every_patched_kernel_boots_and_keeps_its_sites(string kernel, string boot) => Check(kernel, boot);

    private void Check(string kernel, string boot)
    {
        BootConfiguration configuration = BootConfiguration.Named(boot);
        Require.KernelBooting();
        DebianKernel package = fixture.Fetch(TestedKernels.Named(kernel));
        KernelImage image = TestedKernels.Load(package.ImagePath);
        PatchPlan memory = TestedKernels.Plan(image, configuration.Machine);
        PatchPlan file = BootablePlan.Create(image, configuration.Machine, memory);
        file.Apply(BootablePlan.ImageOf(image.Elf));
        DirectoryInfo directory = Directory.CreateTempSubdirectory("pvpatch-patched-");
        try
        {
            string path = Path.Combine(directory.FullName, "vmlinux");
            using (FileStream output = File.Create(path))
            {
                image.Save(output);
            }

            BootedKernel booted = fixture.Boot(path, configuration.Options, fixture.Boot(TestedKernels.Named(kernel)));

            (int matched, List<string> wrong) = TestedKernels.Compare(memory, booted.AfterPatching);
            int left = file.Summary.Count(PatchReason.ChangesWhileBooting);
            output.WriteLine(
                $"{kernel} {boot}: {image.Sites.Count - left} sites patched in the file, {left} left to the kernel; it booted, and "
                + $"{matched} sites are as planned");
            Assert.Empty(wrong);
            Assert.Equal(image.Sites.Count, matched);
            Assert.Equal(boot.StartsWith("xen", StringComparison.Ordinal), left > 0);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }
}
