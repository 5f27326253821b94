using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Kernel;

public sealed class KernelSaveTests
{
    [Fact]
    public void What_the_headers_account_for_is_written_and_nothing_behind_it()
    {
        byte[] file = SyntheticKernel.Complete().Build();
        using var written = new MemoryStream();
        KernelImage.Open((byte[])[.. file, .. new byte[1000]]).Save(written);
        Assert.Equal(file, written.ToArray());
    }

    [Fact]
    public void What_was_applied_is_written()
    {
        using var folder = new TestFolder();
        KernelImage image = SyntheticKernel.Complete().Open();
        KernelPlanTests.Plan(image).Apply(image.Code);
        using (FileStream output = File.Create(folder.File("out")))
        {
            image.Save(output);
        }

        Assert.Equal(image.Elf.File.ToArray(), File.ReadAllBytes(folder.File("out")));
        Assert.False(KernelImage.TryOpen(folder.File("out"), out _, out PatchDiagnostic? error));
        Assert.Equal((KernelDiagnosticCodes.OpsTableNotFound, folder.File("out")), (error.Code, error.Source));
    }
}
