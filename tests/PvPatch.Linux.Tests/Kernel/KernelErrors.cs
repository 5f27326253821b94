using PvPatch.Linux.Files;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>What is wrong with an image, and that nothing was changed in finding out.</summary>
internal static class KernelErrors
{
    /// <summary>The finding for which an image cannot be opened, which has the code given; the file must be as before.</summary>
    public static PatchDiagnostic Open(SyntheticKernel kernel, string code) => Open(kernel.Build(), code);

    public static PatchDiagnostic Open(byte[] file, string code)
    {
        byte[] before = [.. file];
        Assert.True(ElfImage.TryRead(file, out ElfImage? elf, out PatchDiagnostic? error), error?.ToString());
        Assert.False(KernelImage.TryOpen(elf, out KernelImage? image, out error));
        Assert.Null(image);
        Assert.Equal(before, file);
        Assert.True(error.Code == code, $"{code} was expected, not {error}");
        Assert.Equal(DiagnosticSeverity.Error, error.Severity);
        return error;
    }

    /// <summary>The finding for which an image that opens cannot be planned; the file must be as before.</summary>
    public static PatchDiagnostic Plan(SyntheticKernel kernel)
    {
        KernelImage image = kernel.Open();
        byte[] before = image.Elf.File.ToArray();
        Assert.False(new KernelPlanner().TryPlan(image, "native", out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Null(plan);
        Assert.Equal(before, image.Elf.File.ToArray());
        return diagnostics[0];
    }
}
